"""Turn texts into token ids and labels into targets: fit on train (the list of classes), applied to all three parts.

Rows stream through Ray Data, so that memory does not grow with them; few rows are done in the step's own process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Self

from raypath.components.core.artifacts import Dataset, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import Params, Source, Tokens


class PreprocessParams(Params):
    """Which tokenizer, and how long a row may get."""

    tokenizer: Source | None = None
    """Folder or hf://NAME of the tokenizer; none takes the base model's own."""
    max_length: Tokens = 128
    """Longest row in tokens, special ones included; longer texts are cut at the end."""

    def using(self, base: str) -> Self:
        """These params with the tokenizer of `base` where none is named."""
        return self if self.tokenizer else self.model_copy(update={"tokenizer": base})


@component(version=1)
def preprocess(ctx: Context, parts: Splits, params: PreprocessParams) -> Splits:
    """The same rows in the same order, with `input_ids` (list of int32) and, where there are labels, `target`.

    target: int32, index in `labels`, for a class; sorted list of these for a set; list of float32 for numbers. Raises
    DataError for a tokenizer that does not open, a max_length the model does not take, or a class that train does not
    have.
    """
    from raypath.components.data.encoding import EncodeRows, labels_of
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.stream import stream_tables
    from raypath.components.data.tokenizer import TextTokenizer, model_max_length, tokenizer_folder
    from raypath.components.models.base_models import tokenizer_digest

    if params.tokenizer is None:
        raise DataError("no tokenizer is named", fix="write preprocess(parts, p.preprocess.using(base)), or set it")
    folder = tokenizer_folder(params.tokenizer)
    change = EncodeRows(TextTokenizer(folder, params.max_length), labels_of(parts.train))
    progress = ProgressReporter(ctx, sum(part.rows for _, part in _datasets(parts)))
    with closing(stream_tables(_shards(parts), ctx.workers, change)) as tables:
        cut = _write(ctx, parts, tables, progress)
    if cut:
        _warn(ctx, cut, progress.total, params.max_length, model_max_length(folder))
    facts = {"labels": change.labels, "tokenizer": tokenizer_digest(folder), "max_length": params.max_length}
    made = {name: part.model_copy(update={"uri": name, "digest": "", **facts}) for name, part in _datasets(parts)}
    return Splits(train=made["train"], valid=made["valid"], test=made["test"])


def _datasets(parts: Splits) -> list[tuple[str, Dataset]]:
    return [("train", parts.train), ("valid", parts.valid), ("test", parts.test)]


def _shards(parts: Splits) -> list[Any]:
    """The files of all parts, one after another: one execution of Ray Data instead of three."""
    from raypath.components.data.encoding import parquet_shards

    return [shard for _, part in _datasets(parts) for shard in parquet_shards(part.uri)]


def _write(ctx: Context, parts: Splits, tables: Iterator[Any], progress: Any) -> int:
    """One folder a part; the stream is cut where the rows of a part end. Returns how many texts were too long."""
    import pyarrow.compute as pc

    from raypath.components.data.encoding import CUT, encoded_schema
    from raypath.components.data.streaming.parquet import TableWriter, cut

    longer = 0
    for (name, part), mine in zip(_datasets(parts), cut(tables, [p.rows for _, p in _datasets(parts)]), strict=True):
        with TableWriter(ctx.out / name, encoded_schema(part.uri)) as writer:
            for table in mine:
                writer.write(table)
                longer += pc.sum(table[CUT]).as_py() or 0
                progress.add(table.num_rows)
    progress.end()
    return longer


def _warn(ctx: Context, cut: int, rows: int, length: int, most: int | None) -> None:
    """Say how many texts lose their end, and what would keep more: twice the length, as far as the model goes."""
    better = min(2 * length, most or 2 * length)
    keep = f"-s preprocess.max_length={better} keeps more" if better > length else "the model takes no more"
    said = "%s of %s texts are longer than %d tokens and are cut; %s"
    ctx.log.warning(said, f"{cut:,}", f"{rows:,}", length, keep)
