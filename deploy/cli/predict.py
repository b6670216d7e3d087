"""`raypath predict`: batch inference over a file with a registered model, run as a workflow."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import INPUT_PREFIX, inputs_of, is_single_text
from raypath.components.core.errors import ParamsError
from raypath.components.core.files import disk_full_as_store_error
from raypath.components.core.uris import scheme
from raypath.components.data.columns.spreadsheet import safe_cell, safe_column
from raypath.deploy.execution.overrides import from_line
from raypath.deploy.local.launcher import run_graph
from raypath.deploy.local.services import tracking_uri
from raypath.deploy.store.factory import open_store

if TYPE_CHECKING:
    import pyarrow as pa

    from raypath.components.models.metadata import ModelMetadata

FORMATS = (".csv", ".jsonl", ".parquet")


def predict_file(home: Path, model: str, data: str, out: Path | None, settings: Sequence[str]) -> str:
    """Predict every row of `data` and write one file; a language model responds to its rows (responses.py).

    Returns the message to print. Raises ParamsError for an output file of unknown format, that exists, or that cannot
    be written.
    """
    if out is not None:
        _check_target(out)
    from raypath.components.models.language_models import TEXT_TO_TEXT
    from raypath.components.tasks.catalog import check_task, listed_tasks, task_type
    from raypath.workflows.batch_prediction import BatchPrediction, batch_prediction

    changes = from_line(settings)
    source, metadata = _version(home, model)
    # The step `read` imports the kinds of the columns that a stranger's model may name.
    check_task(metadata, [name.strip() for name in changes.get("predict.tasks", "").split(",")])
    generates_text = task_type(metadata.task, metadata.label_kind).generates_text
    target = out or _default_output(data, ".jsonl" if generates_text else ".csv")
    if out is None:
        _check_target(target)
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


def _check_target(target: Path) -> None:
    """Raise ParamsError for a file of unknown format, that exists, or that cannot be written."""
    if target.suffix not in FORMATS:
        raise ParamsError(f"-o {target}: unknown format", fix=f"end it in one of {', '.join(FORMATS)}")
    if not target.parent.is_dir():
        raise ParamsError(f"-o {target}: there is no folder {target.parent}", fix="create it first")
    if os.path.lexists(target):
        raise ParamsError(f"{target} exists", fix="remove it, or name another with -o")
    _check_writable(target)


def _check_writable(target: Path) -> None:
    """Raise ParamsError if the file cannot be created, such as on a read-only disk or with a name that is too long."""
    temporary = _temporary(target)
    try:
        with open(temporary, "xb"):
            pass
    except OSError as error:
        what = f"-o {target} cannot be written ({error.strerror})"
        raise ParamsError(what, fix="name another file or folder with -o") from None
    temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """Return a path that another user of the folder cannot have made a link of."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}")


def _default_output(data: str, suffix: str) -> Path:
    if scheme(data):
        return Path(f"predictions{suffix}")
    path = Path(data)
    stem = path.name.partition(".")[0] or "data"
    return (path.parent if path.parent.is_dir() else Path()) / f"{stem}.predictions{suffix}"


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


def write(result: Dataset, target: Path) -> None:
    """Write the rows to one file, one row group at a time, atomically. Raises StoreError for a full disk."""
    from raypath.components.data.streaming.parquet import scan, schema_of

    temporary = _temporary(target)
    writer = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[target.suffix]
    try:
        with disk_full_as_store_error(f"no space left for {target}"):
            schema = schema_of(result.uri)
            names = _user_names(schema.names)
            tables = (table.rename_columns(names) for table in scan(result.uri))
            writer(schema.empty_table().rename_columns(names).schema, tables, temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _user_names(stored: Sequence[str]) -> list[str]:
    """Return the user's names of input columns; a name that another column has keeps its prefix."""
    plain = [name.removeprefix(INPUT_PREFIX) for name in stored]
    return [short if plain.count(short) == 1 else name for name, short in zip(stored, plain, strict=True)]


def _csv(schema: pa.Schema, tables: Iterator[pa.Table], path: Path) -> None:
    import pyarrow.csv as csv

    with csv.CSVWriter(path, _plain(schema.empty_table()).schema) as file:
        for table in tables:
            file.write_table(_plain(table))


def _plain(rows: pa.Table) -> pa.Table:
    """Join lists, such as sets of labels, to text separated by |, because CSV has no lists; no cell is a formula."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for n, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            words = pc.cast(rows.column(n), pa.list_(pa.string()))
            rows = rows.set_column(n, field.name, pc.binary_join(words, "|"))
    columns = {safe_cell(name): safe_column(rows[name]) for name in rows.column_names}
    return pa.table(columns)


def _parquet(schema: pa.Schema, tables: Iterator[pa.Table], path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as file:
        for table in tables:
            file.write_table(table)


def _jsonl(schema: pa.Schema, tables: Iterator[pa.Table], path: Path) -> None:
    import json

    with open(path, "w", encoding="utf-8") as file:
        for table in tables:
            for row in table.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False, default=datetime.isoformat) + "\n")
