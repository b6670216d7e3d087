"""A dataset of several small files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.parquet import TableWriter

ROWS = 9_000
SCHEMA = pa.schema({"text": pa.string(), "n": pa.int64()})


def use_small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write files of two row groups."""
    monkeypatch.setattr(parquet, "FILE_ROWS", 4_096)


def write_source(folder: Path) -> Path:
    """Write ROWS rows to a folder."""
    table = pa.table({"text": [f"text {n}" for n in range(ROWS)], "n": range(ROWS)}, SCHEMA)
    with TableWriter(folder, SCHEMA) as writer:
        writer.write(table)
    return folder
