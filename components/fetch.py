"""Fetch a registered version as the model that training starts from, such as one fine-tuned on conversations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from raypath.components.core.artifacts import Model
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError
from raypath.components.core.params import AUTO, Params, Source
from raypath.components.core.uris import scheme
from raypath.components.models.base_models import base_folder
from raypath.components.models.conversion.packaged import CHAT
from raypath.components.registry.tags import unpack
from raypath.components.tracking import rest
from raypath.components.tracking.tags import START

if TYPE_CHECKING:
    from raypath.components.models.metadata import ModelMetadata

FILES = ("config.json", "generation_config.json", "adapter_config.json", "*.safetensors", "*.index.json")
"""Patterns of the files of a model besides those of its tokenizer."""
ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")


class FetchParams(Params):
    """The version to start from."""

    model: Source = ""
    """models:/NAME/VERSION or models:/NAME@champion in the registry, or a model folder. In the workflow `preference`,
    auto takes the champion of registry.name, unless finetune.base is set, which is then what training starts from."""
    base: Source = ""
    """Base model that takes the place of a champion where there is none; without it that is an error."""

    def resolved(self, name: str, base: str) -> Self:
        """Return the settings with `auto` replaced. name: in the registry; base: setting of `finetune`."""
        if self.model != AUTO:
            return self
        if base != AUTO:
            return self.model_copy(update={"model": ""})
        return self.model_copy(update={"model": f"models:/{name}@champion", "base": self.base or CHAT})


def _alive(ctx: Context, model: Model) -> bool:
    """Return True if the alias still names the version that was fetched, or one whose training started from it.

    Raises Unavailable if MLflow does not respond.
    """
    if not model.alias:
        return True
    name = model.version.partition("/")[0]
    number, tags = _behind(ctx, name, model.alias)
    return model.version in (f"{name}/{number}", tags.get(START))


def _behind(ctx: Context, name: str, alias: str) -> tuple[int, dict[str, str]]:
    """Return number and facts of the version behind an alias; (0, {}) without one."""
    found = rest.get(ctx.tracking.uri, "registered-models/alias", name=name, alias=alias).get("model_version", {})
    tags = {str(tag["key"]): str(tag["value"]) for tag in found.get("tags", [])}
    return int(found.get("version", 0)), unpack(tags)


@component(version=1, alive=_alive)
def fetch(ctx: Context, params: FetchParams) -> Model:
    """Return a registered version, with complete weights or LoRA adapters alone, as a model to start from.

    It is fetched again when the alias has moved, unless to a version that was trained from this one. Raises ParamsError
    without a model, and DataError for one that does not exist or does not open.
    """
    import shutil

    from raypath.components.models.base_models import TOKENIZER_COPY
    from raypath.components.models.metadata import read_metadata, write_metadata
    from raypath.components.tasks.catalog import check_task

    if not params.model:
        raise ParamsError("setting model got nothing", fix="set models:/NAME@champion, or a model folder")
    alias = ALIAS.fullmatch(params.model)
    if alias and params.base and not _behind(ctx, *alias.groups())[0]:
        version, folder = f"{alias[1]}/0", base_folder(params.base)
        metadata = _base_metadata(params.base, folder)
        advice = f"`raypath run chat -s registry.name={alias[1]}` first makes a better start"
        ctx.log.warning("%s has no %s: training starts from %s; %s", alias[1], alias[2], params.base, advice)
    else:
        version, folder = _version(ctx, params.model)
        metadata = read_metadata(folder)
        check_task(metadata)
    for path in (path for pattern in (*TOKENIZER_COPY, *FILES) for path in folder.glob(pattern)):
        shutil.copyfile(path, ctx.out / path.name)
    write_metadata(ctx.out, metadata)
    return Model(
        task=metadata.task,
        base=metadata.base,
        labels=metadata.labels,
        label_kind=metadata.label_kind,
        max_length=metadata.max_length,
        version=version,
        alias=alias[2] if alias else "",
    )


def _version(ctx: Context, model: str) -> tuple[str, Path]:
    """Return NAME/NUMBER of a registered version, "" for a model folder, and its folder."""
    from raypath.components.inference.batch.chunk_worker import model_folder
    from raypath.components.registry.cache import cache_folder
    from raypath.components.registry.client import resolve

    if scheme(model) != "models:/":
        return "", model_folder(model, ctx.tracking.uri, ctx.signing)
    name, number, folder = resolve(ctx.tracking.uri, model, cache_folder(ctx.signing), ctx.signing)
    return f"{name}/{number}", folder


def _base_metadata(base: str, folder: Path) -> ModelMetadata:
    """Build the metadata of a base: with its digest, so that adapters that are trained from the copy name the base."""
    from raypath.components.core.labels import LabelKind
    from raypath.components.data.tokenization.conversation_rows import LIMIT
    from raypath.components.data.tokenization.tokenizer import model_max_length
    from raypath.components.models.base_models import weights_digest
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.preference import CONVERSATION

    return ModelMetadata(
        task="text_generation",
        labels=(),
        label_kind=LabelKind.NONE,
        max_length=model_max_length(folder) or LIMIT,
        columns=(CONVERSATION,),
        base=base,
        base_digest=weights_digest(folder),
    )
