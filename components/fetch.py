"""Fetch a registered version as the model that training starts from, such as one fine-tuned on conversations."""

from __future__ import annotations

from raypath.components.core.artifacts import Model
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError
from raypath.components.core.params import Params, Source

FILES = ("config.json", "generation_config.json", "adapter_config.json", "*.safetensors", "*.index.json")
"""Patterns of the files of a model besides those of its tokenizer."""


class FetchParams(Params):
    """The version to start from."""

    model: Source = ""
    """models:/NAME/VERSION or models:/NAME@champion in the registry, or a model folder."""


@component(version=1)
def fetch(ctx: Context, params: FetchParams) -> Model:
    """Return a registered version, with complete weights or LoRA adapters alone, as a model to start from.

    Raises ParamsError without a model, and DataError for one that does not exist or does not open.
    """
    import shutil

    from raypath.components.inference.batch.worker import model_folder
    from raypath.components.models.base_models import TOKENIZER_COPY
    from raypath.components.models.metadata import read_metadata, write_metadata
    from raypath.components.tasks.catalog import check_task

    if not params.model:
        raise ParamsError("setting model got nothing", fix="set models:/NAME@champion, or a model folder")
    folder = model_folder(params.model, ctx.tracking.uri, ctx.signing)
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
    )
