"""`raypath predict`: batch inference over a file with a registered model, run as a workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import inputs_of, is_single_text
from raypath.components.core.errors import ParamsError
from raypath.components.core.uris import scheme
from raypath.deploy.cli.prediction.output import check_target, default_output, write
from raypath.deploy.execution.overrides import from_line
from raypath.deploy.local.launcher import run_graph
from raypath.deploy.local.services import tracking_uri
from raypath.deploy.store.factory import open_store

if TYPE_CHECKING:
    from raypath.components.models.metadata import ModelMetadata


def predict_file(home: Path, model: str, data: str, out: Path | None, settings: Sequence[str]) -> str:
    """Predict every row of `data` and write one file; a language model responds to its rows (responses.py).

    Returns the message to print. Raises ParamsError for an output file of unknown format, that exists, or that cannot
    be written.
    """
    if out is not None:
        check_target(out)
    from raypath.components.models.language_models import TEXT_TO_TEXT
    from raypath.components.tasks.catalog import check_task, listed_tasks, task_type
    from raypath.workflows.batch_prediction import BatchPrediction, batch_prediction

    changes = from_line(settings)
    source, metadata = _version(home, model)
    # The step `read` imports the kinds of the columns that a stranger's model may name.
    check_task(metadata, [name.strip() for name in changes.get("predict.tasks", "").split(",")])
    generates_text = task_type(metadata.task, metadata.label_kind).generates_text
    target = out or default_output(data, ".jsonl" if generates_text else ".csv")
    if out is None:
        check_target(target)
    if generates_text:
        texts = {"read.text": inputs_of(metadata.columns)[0].name} if metadata.task == TEXT_TO_TEXT else {}
        return _respond(home, source, data, target, {**texts, **changes})
    columns = inputs_of(metadata.columns)
    fixed: dict[str, Any] = {"read.uri": data, "predict.model": source, "read.label": "none"}
    if not is_single_text(columns):
        fixed["read.inputs"] = [column.name for column in columns]
        fixed["read.kinds"] = {column.name: column.kind for column in columns if column.kind != "text"}
    # Workers do not have this process's environment.
    tasks = {"predict.tasks": list(listed_tasks())} if listed_tasks() else {}
    params = BatchPrediction().override({"read.text": "text", **tasks, **fixed, **changes})
    result, _, _ = run_graph(batch_prediction.trace(params), home)
    assert isinstance(result, Dataset)
    write(open_store(home).local(result), target)
    return f"{result.rows} predictions in {target}"


def _respond(home: Path, source: str, data: str, target: Path, changes: Mapping[str, Any]) -> str:
    """Let a language model respond to every row; returns the message to print."""
    from raypath.deploy.cli.language.responses import FORMATS, write_responses
    from raypath.workflows.batch_generation import BatchGeneration, batch_generation

    if target.suffix not in FORMATS:
        raise ParamsError(f"-o {target}: responses have no such format", fix=f"end it in {' or '.join(FORMATS)}")
    fixed = {"read.uri": data, "generate.model": source}
    params = BatchGeneration().override({**fixed, **changes})
    result, _, _ = run_graph(batch_generation.trace(params), home)
    assert isinstance(result, Dataset)
    failed = write_responses(open_store(home).local(result).uri, target)
    without = f", {failed:,} of them without an answer" if failed else ""
    return f"{result.rows} responses in {target}{without}"


def _version(home: Path, model: str) -> tuple[str, ModelMetadata]:
    """Resolve `models:/NAME@ALIAS` to a version, since aliases move and cache keys must not depend on them.

    Returns it with the model's metadata.
    """
    from raypath.components.models.metadata import read_metadata

    if scheme(model) != "models:/":
        if not Path(model).is_dir():
            raise ParamsError(f"no model folder {model}", fix=f"a registered one is models:/{model}@champion")
        return model, read_metadata(Path(model))
    from raypath.components.registry.cache import cache_folder
    from raypath.components.registry.client import resolve

    name, version, folder = resolve(tracking_uri(home), model, cache_folder(home / "signing"), home / "signing")
    return f"models:/{name}/{version}", read_metadata(folder)
