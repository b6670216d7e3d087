"""Rows under inspection: a stream of parts, each a file or a split, and the places that row numbers stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.core.columns import Column, Role
from raypath.components.inspection.report import Place

SHOWN = 10
"""Row numbers of a finding that the report shows."""


@dataclass(frozen=True)
class Part:
    """Rows of one file or one split. tables: `text` (null for a row that is dropped), and `label`, `split` if any.

    split: the split of all its rows; "" if the column `split` has it, or there are no splits. first: number of the
    first row in the source, from 0; a source may be divided into successive parts.
    """

    source: str
    tables: Iterable[pa.Table]
    split: str = ""
    first: int = 0
    portable: bool = False
    """True if a task on any node can read the rows."""


@dataclass
class Places:
    """Names of rows by their position in the stream."""

    sources: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def begin(self, part: Part, position: int) -> None:
        """Begin a part at this position; only the first part of a source is a place of its own."""
        if not part.first:
            self.sources.append(part.source)
            self.starts.append(position)

    def of(self, position: int) -> Place:
        """Return the place of a row."""
        n = int(np.searchsorted(self.starts, position, side="right")) - 1
        return Place(source=self.sources[n], row=position - self.starts[n] + 1)

    def some(self, positions: Array) -> list[Place]:
        """Return the places of the first rows."""
        return [self.of(int(n)) for n in positions[:SHOWN]]


def position_type(rows: int) -> Any:
    """Return the type of positions of so many rows."""
    return np.int32 if rows < 2**31 else np.int64


def with_text(table: Any, columns: Sequence[Column]) -> Any:
    """Add the column `text` of all inputs, null where all are null, to a table that has none.

    A table of conversations also gets them under a name of their own.
    """
    if "text" in table.column_names:
        return table
    import pyarrow.compute as pc

    from raypath.components.data.rendering import contents, without_inputs
    from raypath.components.data.tokenization.conversation_rows import conversation_column
    from raypath.components.inspection.texts.conversations import COLUMN

    inputs = [column for column in columns if column.role is Role.INPUT]
    missing = without_inputs(table, [column.stored for column in inputs])
    if column := conversation_column(columns):
        table = table.append_column(COLUMN, table[column.stored])
    return table.append_column("text", pc.if_else(missing, None, contents(table, inputs)))


def tables_of(parts: Iterable[Part], places: Places) -> Iterator[tuple[Part, int, Any]]:
    """Yield (part, position of the first row, table) of all parts."""
    position = 0
    for part in parts:
        places.begin(part, position)
        for table in part.tables:
            yield part, position, table
            position += table.num_rows
