"""Registered models: list, promote, roll back, load one into this process, and export one for other programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raypath.components.core.errors import ParamsError
from raypath.components.core.uris import local_path, scheme
from raypath.deploy.api.project import home_folder, private_process, registry_uri
from raypath.deploy.api.results import ModelVersion, Promotion
from raypath.deploy.store.audit.log import audited

if TYPE_CHECKING:
    from raypath.components.cards.facts import ModelFacts
    from raypath.components.export.target import Progress
    from raypath.components.inference.generation.local_chat import LocalChat
    from raypath.components.inference.local_model import LocalModel


def models(*, home: str | Path | None = None) -> list[ModelVersion]:
    """Return all versions of all registered models, the newest first within a name. Starts MLflow where it is down.

    Args:
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        Unavailable: MLflow does not answer.
    """
    from raypath.components.registry.client import list_registered, mlflow_client
    from raypath.components.serving.live.evidence_run import live_progress

    folder = home_folder(home)
    with private_process(), mlflow_client(registry_uri(folder)) as client:
        found = list_registered(client)
        tests = [live_progress(client, each, folder / "signing") if each.aliases else "" for each in found]
    return [
        ModelVersion(
            name=each.name,
            version=each.version,
            aliases=list(each.aliases),
            metrics=each.metrics,
            created=each.created,
            tags=each.facts,
            live=live,
        )
        for each, live in zip(found, tests, strict=True)
    ]


def promote(name: str, version: int, *, home: str | Path | None = None) -> Promotion:
    """Make a version the champion, and wait until every replica of its endpoint serves it.

    Args:
        name: Name of the registered model.
        version: Version number.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        ParamsError: `name` is no text, or `version` no integer.
        DataError: Unknown model or version.
        PlatformError: A replica rejected the version; the champion before is in service again.
    """
    from raypath.components.registry import aliases
    from raypath.deploy.local.rollout import roll_out

    _check_name(name)
    if isinstance(version, bool) or not isinstance(version, int):
        raise ParamsError(f"version={version!r}; wanted an integer", fix="see `raypath.models()`")
    folder = home_folder(home)
    with private_process(), audited(folder, "model.promote", f"{name}/{version}") as detail:
        before = aliases.promote(registry_uri(folder), name, version, folder / "signing")
        detail["previous"] = before
        serving = roll_out(folder, name, version, before)
    return Promotion(name=name, version=version, previous=before, serving=serving)


def rollback(name: str, *, home: str | Path | None = None) -> Promotion:
    """Make the champion before this one the champion again, and wait until its endpoint serves it.

    Raises:
        UserError: No champion, or none before it.
        PlatformError: A replica rejected the version.
    """
    from raypath.components.registry import aliases
    from raypath.deploy.local.rollout import roll_out

    _check_name(name)
    folder = home_folder(home)
    with private_process(), audited(folder, "model.rollback", name) as detail:
        version, before = aliases.rollback(registry_uri(folder), name, folder / "signing")
        detail.update(version=version, previous=before)
        serving = roll_out(folder, name, version, before)
    return Promotion(name=name, version=version, previous=before, serving=serving)


def load(
    model: str | Path,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 0,
    home: str | Path | None = None,
) -> LocalModel | LocalChat:
    """Load a model into this process. It predicts what its endpoint does, in the same precision; a language
    model has `chat` and `generate` instead of `predict`.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a model folder, such as `run.artifacts["finetune"].uri`.
        device: cpu, cuda, or auto (cuda where there is one).
        threads: CPU threads; 0 leaves torch's own number.
        home: Home folder of the project, whose registry is queried; default $RAYPATH_HOME, else .raypath here.

    Raises:
        DataError: Unknown model, version or alias, or a folder that is no model.
        ParamsError: No such folder, device or number of threads.

    Example:
        model = raypath.load("models:/reviews@champion")
        print(model.predict(["Great taste", "Arrived broken"])[0].label)
    """
    name, version, folder = located_model(model, home_folder(home))
    return _open(folder, name, version, device, threads)


def export(
    model: str | Path,
    folder: str | Path,
    *,
    to: Literal["hf", "peft", "gguf", "onnx", "encoder"],
    type: Literal["f16", "bf16", "q8_0"] = "f16",
    progress: Progress | None = None,
    home: str | Path | None = None,
) -> Path:
    """Write a model in the format of other programs, with a model card; returns the folder.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a model folder.
        folder: New or empty folder. It is complete, or unchanged after an error.
        to: hf (transformers, adapters merged), peft (the LoRA adapter alone), gguf (llama.cpp and Ollama), onnx, or
            encoder (the model without its head, for `Client.predict_encrypted`).
        type: Type of the matrices in GGUF.
        progress: Called with the bytes that are written and all bytes.
        home: Home folder of the project, whose registry is queried; default $RAYPATH_HOME, else .raypath here.

    Raises:
        DataError: Unknown model, version or alias, altered files, or a model that the format does not take.
        ParamsError: Unknown format or type, a folder that is not empty, or a package that is not installed.
        StoreError: The disk is full.

    Example:
        raypath.export("models:/chat@champion", "chat-gguf", to="gguf", type="q8_0")
    """
    from raypath.components.export.formats import check_format, export_model
    from raypath.components.export.target import check_target

    check_format(to, type)
    target = Path(folder).expanduser()
    check_target(target)
    place = home_folder(home)
    name, version, found = located_model(model, place)
    named = f"{name}/{version}" if version else str(found)
    with private_process(), audited(place, "model.export", named, {"format": to, "folder": str(target)}):
        facts = model_facts(name, version, found, place)
        export_model(found, target, to, facts, type, progress or (lambda *_: None))
    return target


def located_model(model: str | Path, home: Path) -> tuple[str, int, Path]:
    """Return name, version (0 for a folder) and local folder of a model; the files of a version are checked."""
    source = str(model) if isinstance(model, Path) else _check_name(model)
    if scheme(source) != "models:/":
        folder = local_path(source)
        if not folder.is_dir():
            named = source if re.fullmatch(r"[\w-][\w.-]*", source) else "NAME"
            raise ParamsError(f"no model folder {source}", fix=f"a registered one is models:/{named}@champion")
        return folder.name, 0, folder
    from raypath.components.registry.cache import cache_folder
    from raypath.components.registry.client import resolve

    with private_process():
        return resolve(registry_uri(home), source, cache_folder(home / "signing"), home / "signing")


def model_facts(name: str, version: int, folder: Path, home: Path) -> ModelFacts:
    """Return what the card of an exported model states."""
    from raypath.components.cards.facts import facts_of
    from raypath.components.registry.client import get_version, mlflow_client
    from raypath.components.registry.tags import unpack
    from raypath.components.tracking.tags import DATA

    data = ""
    if version:
        with mlflow_client(registry_uri(home)) as client:
            data = unpack(get_version(client, name, version).tags).get(DATA, "")
    return facts_of(name, version, folder, data)


def _open(
    folder: Path, name: str, version: int, device: Literal["auto", "cpu", "cuda"], threads: int
) -> LocalModel | LocalChat:
    from raypath.components.inference.generation.local_chat import LocalChat
    from raypath.components.inference.local_model import LocalModel, check_device
    from raypath.components.models.metadata import read_metadata
    from raypath.components.tasks.catalog import check_task, task_type

    check_device(device, threads)
    card = read_metadata(folder)
    check_task(card)
    kind = LocalChat if task_type(card.task, card.label_kind).generates_text else LocalModel
    return kind(folder, name, version, device=device, threads=threads)


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise ParamsError(f"got {name!r}; wanted the name of a model", fix="see `raypath.models()`")
    return name
