"""Restore the originals of a redacted dataset, for those who have its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import DataError
from raypath.components.privacy.keys import find_key, key_folder
from raypath.components.privacy.originals import unseal

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = "report.json"
ORIGINALS, ORIGINAL = "originals", "original"
"""Folder beside the rows, and its column."""


def restore(rows: Path, keys: Path | None = None) -> pa.Table:
    """Return the rows of a redacted dataset as they were before it.

    rows: Folder `rows` of a step `redact`. keys: Folder of the keys; None for that of the current project. Raises
    DataError if the originals were not kept, or without the key.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files, originals = sorted(rows.glob("*.parquet")), sorted((rows.parent / ORIGINALS).glob("*.parquet"))
    if not originals or len(files) != len(originals):
        raise DataError(f"{rows.parent} has no originals", fix="set redact.reversible=true before the rows are read")
    settings = json.loads((rows.parent / FACTS).read_text(encoding="utf-8"))
    key = find_key(settings["sealed_by"], keys or key_folder(None))
    tables = []
    for file, sealed in zip(files, originals, strict=True):
        table = pq.read_table(file)
        known = [
            None if each is None else json.loads(unseal(key, each))
            for each in pq.read_table(sealed)[ORIGINAL].to_pylist()
        ]
        tables.append(_restored(table, known))
    return pa.concat_tables(tables)


def _restored(table: pa.Table, known: list[dict[str, Any] | None]) -> pa.Table:
    """Replace the values of the rows whose originals are known."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in known if row for name in row))
    for name in names:
        place = table.schema.get_field_index(name)
        values = [
            value if row is None else row[name] for value, row in zip(table[name].to_pylist(), known, strict=True)
        ]
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table
