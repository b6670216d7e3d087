"""`raypath predict URL DATA --encrypted BASE`: features and encryption here, the head in an endpoint that sees neither
texts nor scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import DataError, ParamsError
from raypath.deploy.cli.prediction.output import check_target, default_output, write_tables
from raypath.deploy.execution.overrides import from_line

if TYPE_CHECKING:
    import pyarrow as pa

    from raypath.components.tasks.responses import Prediction

COLUMN = "read.text"
ROWS = 256
"""Texts whose predictions are requested together."""
DIGITS = 3
"""Decimals of a probability: exact scores, in large numbers, may tell of the secret key."""
_MODELS = "/models/"


def predict_encrypted(url: str, data: str, base: str, out: Path | None, settings: Sequence[str]) -> str:
    """Predict every text of a file by an endpoint with `serve.encrypted`; returns the message to print.

    Args:
        url: Of the endpoint, or of one of its models, URL/models/NAME. The API key is that of RAYPATH_API_KEY.
        data: A .txt file with a text in each line, or a csv, tsv, json, jsonl, parquet, arrow or xlsx file.
        base: Encoder, as `Client.predict_encrypted` takes it.
        out: Output file; None takes one beside `data`.
        settings: read.text=COLUMN, for a file with columns.

    Raises ParamsError for another URL, setting or output, DataError for a file without texts, and what the client
    raises.
    """
    from raypath.components.serving.client.client import Client

    if not url.startswith(("http://", "https://")):
        raise ParamsError(f"--encrypted needs an endpoint, not {url}", fix="give its URL in place of the model")
    target = out or default_output(data, ".csv")
    check_target(target)
    texts = read_texts(Path(data), _column(settings))
    place, _, name = url.partition(_MODELS)
    with Client(place, model=name) as client:
        found = [client.predict_encrypted(texts[n : n + ROWS], base) for n in range(0, len(texts), ROWS)]
    table = _table(texts, [prediction for each in found for prediction in each])
    write_tables(table.schema, [table], target)
    return f"{len(texts)} predictions of {found[-1].model} {found[-1].version} in {target}"


def read_texts(path: Path, column: str) -> list[str]:
    """Return the texts of a file, in order. column: its name, for a file with columns.

    Raises DataError for a file that does not open or has no texts, or a row without one.
    """
    try:
        texts = _lines(path) if path.suffix.lower() == ".txt" else list(_cells(path, column))
    except OSError as error:
        raise DataError(f"{path} does not open ({error.strerror})", fix="name a file with texts") from None
    if not texts:
        raise DataError(f"{path} has no texts", fix="give a file with a text in each line, or with columns")
    missing = next((n for n, text in enumerate(texts, 1) if text is None or not text.strip()), None)
    if missing is not None:
        raise DataError(f"{path}: row {missing} has no text", fix="remove it, or fill it in")
    return [str(text) for text in texts]


def _lines(path: Path) -> list[str | None]:
    try:
        return list(path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start})", fix="convert it to UTF-8") from None


def _cells(path: Path, column: str) -> Iterator[str | None]:
    from raypath.components.core.columns import TEXT, Column
    from raypath.components.data.columns.schema import Columns
    from raypath.components.data.formats.readers import columns_in, rows_of
    from raypath.components.data.sources.data_file import WANTED, DataFile, format_of

    kind = format_of(path)
    if kind in ("", "zip"):
        raise DataError(f"{path} has an unknown format", fix=f"give a .txt file, or {WANTED}")
    file = DataFile(path, kind, stamp=DataFile(path, kind).stat())
    names = columns_in(file, [column])
    if column not in names:
        raise DataError(f"{path} has no column {column}; it has {', '.join(names)}", fix=f"set -s {COLUMN}=COLUMN")
    for _, table in rows_of(file, Columns(inputs=(Column(name=column),))):
        yield from table[TEXT].to_pylist()


def _column(settings: Sequence[str]) -> str:
    given = from_line(settings)
    if others := sorted(set(given) - {COLUMN}):
        raise ParamsError(f"{others[0]} is no setting of encrypted predictions", fix=f"{COLUMN} is the only one")
    return str(given.get(COLUMN, "text"))


def _table(texts: Sequence[str], found: Sequence[Prediction]) -> pa.Table:
    """Return texts with `predicted` and, for one class, its probability `score`; several numbers have a column each."""
    import pyarrow as pa

    columns: dict[str, Any] = {"text": pa.array(texts, pa.string())}
    if numbers := list(found[0].values):
        names = ["predicted"] if len(numbers) == 1 else [f"predicted_{name}" for name in numbers]
        columns |= {key: [each.values[name] for each in found] for key, name in zip(names, numbers, strict=True)}
    elif found[0].label is not None:
        columns["predicted"] = [str(each.label) for each in found]
        columns["score"] = [round(each.score or 0.0, DIGITS) for each in found]
    else:
        columns["predicted"] = pa.array([each.labels for each in found], pa.list_(pa.string()))
    return pa.table(columns)
