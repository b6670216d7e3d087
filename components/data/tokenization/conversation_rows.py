"""Rows of conversations and preferences as token ids, with loss masks; long rows are dropped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column, inputs_of
from raypath.components.core.context import Context
from raypath.components.core.conversations import Conversation, Preference
from raypath.components.core.errors import DataError, RowError, numbered
from raypath.components.data.encoding import IDS_TYPE, TARGET_TYPES, EncodeTargets
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.parquet import label_kind_of, schema_of
from raypath.components.data.streaming.progress import ProgressReporter
from raypath.components.data.streaming.row_files import dataset_files
from raypath.components.data.streaming.shard_tasks import Output, write_outputs
from raypath.components.data.streaming.stream import BATCH_ROWS
from raypath.components.data.wording import plural, verb
from raypath.components.models.chat_template import ChatTemplate, Encoded
from raypath.components.models.chat_template.source_target import SourceTarget

MASK_TYPE = pa.list_(pa.bool_())
KINDS = ("messages", "preference")
LIMIT = 4_096
"""Maximum length of a row in tokens where none is set and the model takes more."""
_NAMES = (("input_ids", "loss_mask"), ("rejected_ids", "rejected_mask"))
"""Columns of a conversation; a preference has its rejected answer in the second pair."""


def conversation_column(columns: Iterable[Column]) -> Column | None:
    """Return the only input column if it has conversations or preferences."""
    inputs = inputs_of(columns)
    return inputs[0] if len(inputs) == 1 and inputs[0].kind in KINDS else None


@dataclass(frozen=True)
class EncodeConversations:
    """Add `input_ids` (list of int32) and `loss_mask` (list of bool, True for tokens in the loss) to rows.

    Preferences have prompt and chosen answer there, and prompt and rejected answer in `rejected_ids` and
    `rejected_mask`. Labelled rows get `target`. Rows of more than `max_length` tokens are dropped, or raise DataError;
    none is truncated, since the answer would end in its middle.
    """

    template: ChatTemplate | SourceTarget
    column: Column
    max_length: int
    labels: tuple[str, ...] = ()
    learn: Literal["assistant", "all"] = "assistant"
    too_long: Literal["drop", "error"] = "drop"
    limit: int | None = None
    """Most tokens that the model takes, if that is known."""

    def __call__(self, table: pa.Table) -> pa.Table:
        values = table[self.column.stored].to_pylist()
        try:
            rows = self._encoded(values)
        except DataError:
            rows = [self._one(n, value) for n, value in enumerate(values)]
        lengths = np.array([max(each.length for each in row) for row in rows], np.int64)
        fits = lengths <= self.max_length
        if self.too_long == "error" and not fits.all():
            longest = int(lengths.max())
            what = f"it has {longest:,} tokens; at most {self.max_length:,} are allowed"
            fits_model = not self.limit or longest <= self.limit
            fix = (
                f"set -s preprocess.max_length={longest}" if fits_model else "shorten it, since the model takes no more"
            )
            fix += "; or drop such rows with -s preprocess.too_long=drop"
            raise RowError(what, fix=fix, row=int(lengths.argmax()))
        table = table.filter(pa.array(fits))
        rows = [row for row, kept in zip(rows, fits.tolist(), strict=True) if kept]
        for n, (ids, mask) in enumerate(_NAMES[: self._parts]):
            table = table.append_column(ids, pa.array([row[n].ids for row in rows], IDS_TYPE))
            table = table.append_column(mask, pa.array([row[n].mask for row in rows], MASK_TYPE))
        target = self._targets(table)
        return table if target is None else table.append_column("target", target)

    def _encoded(self, values: list[str]) -> list[tuple[Encoded, ...]]:
        if self.column.kind == "preference":
            return [*self.template.encode_pairs([Preference.loads(value) for value in values], self.learn)]
        return [(each,) for each in self.template.encode_all(list(map(Conversation.loads, values)), self.learn)]

    def _one(self, row: int, value: str) -> tuple[Encoded, ...]:
        """Encode a row alone. Raises RowError."""
        try:
            return self._encoded([value])[0]
        except DataError as error:
            raise RowError(error.what, fix=error.fix, row=row) from None

    @property
    def _parts(self) -> int:
        return 2 if self.column.kind == "preference" else 1

    @cached_property
    def _targets(self) -> EncodeTargets:
        return EncodeTargets(self.labels)

    def schema(self, folder: str | Path) -> pa.Schema:
        """Return the schema of a dataset after encoding."""
        schema = schema_of(folder)
        target = TARGET_TYPES.get(label_kind_of(schema))
        for ids, mask in _NAMES[: self._parts]:
            schema = schema.append(pa.field(ids, IDS_TYPE)).append(pa.field(mask, MASK_TYPE))
        return schema if target is None else schema.append(pa.field("target", target))


def write(
    ctx: Context, folders: Mapping[str, str], encode: EncodeConversations, progress: ProgressReporter
) -> dict[str, int]:
    """Write the rows of each folder below `ctx.out` in this process. Returns the rows of each that were not dropped.

    A file has the rows of a fixed range of the source, as those that tasks write: it is not filled up after drops.
    """
    rows = {}
    for name, folder in folders.items():
        source, schema = dataset_files(folder), encode.schema(folder)
        rows[name] = done = 0
        for number, first in enumerate(range(0, max(source.rows, 1), parquet.FILE_ROWS)):
            with parquet.TableWriter(ctx.out / name, schema, number) as writer:
                for group in source.read(first, min(parquet.FILE_ROWS, source.rows - first)):
                    for start in range(0, len(group), BATCH_ROWS):
                        with numbered(name, done + start):
                            writer.write(encode(group.slice(start, BATCH_ROWS)))
                    done += len(group)
                    progress.add(len(group))
            rows[name] += writer.rows
    return rows


def write_in_tasks(
    ctx: Context, folders: Mapping[str, str], encode: EncodeConversations, progress: ProgressReporter
) -> dict[str, int]:
    """Write the same files with Ray Data, each by one task."""
    outputs = {name: Output(dataset_files(folder), encode.schema(folder), encode) for name, folder in folders.items()}
    written = write_outputs(ctx, outputs, progress.add)
    return {name: sum(shard.rows for shard in shards) for name, shards in written.items()}


def report_dropped(
    log: logging.Logger, rows: Mapping[str, int], before: Mapping[str, Dataset], length: int, limit: int | None
) -> None:
    """Log the number of rows that were too long. limit: tokens that the model takes, if that is known.

    Raises DataError if none of a split is left.
    """
    total = sum(data.rows for data in before.values())
    dropped = total - sum(rows.values())
    better = min(2 * length, limit or 2 * length)
    for name, data in before.items():
        if data.rows and not rows[name]:
            fix = f"set -s preprocess.max_length={better}" if better > length else "divide them into shorter rows"
            raise DataError(f"every row of {name} has more than {length} tokens", fix=fix)
    if dropped:
        advice = f"-s preprocess.max_length={better} keeps more" if better > length else "the model takes no more"
        are = verb(dropped, "is", "are")
        message = f"{dropped:,} of {plural(total, 'row')} {are} longer than {length} tokens and {are} dropped; {advice}"
        log.warning("%s", message)
