"""What tests of `read` read with, and files that they write."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components import Dataset

Read = Callable[..., tuple[Dataset, list[dict[str, Any]]]]
"""`reading(uri, **params)` -> the dataset and its rows."""

HEAD = b"text,label\n"
ROWS = [{"text": '好茶 🍵, "really"', "label": "good"}, {"text": "two\nlines", "label": "bad"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format that the name says."""
    kind = path.name.split(".", 1)[1]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if "json" in kind:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        mark = "\t" if kind.startswith("tsv") else ","
        cells = [list(rows[0]), *(list(row.values()) for row in rows)]
        text = "".join(mark.join(quote(str(cell)) for cell in line) + "\n" for line in cells)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
    return path


def quote(cell: str) -> str:
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'
