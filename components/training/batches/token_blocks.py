"""Row groups of a preprocessed dataset: the unit in which training reads rows. A few are cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from raypath.components.data.streaming.shard_files import ShardFile
from raypath.components.training.batches.pairs import (
    PAIR_COLUMNS,
    REJECTED_IDS,
    Pairs,
    flat_lists,
    join_answers,
    masked_tokens,
)
from raypath.components.training.batches.row_group_ranges import GroupRange

COLUMNS = ("input_ids", "loss_mask", *PAIR_COLUMNS, "features")
FETCHES = 8
"""Row groups that are fetched from object storage at a time."""


@dataclass(frozen=True)
class TokenBlock:
    """Rows of one row group: ids int32 [sum of lengths]; offsets int64 [N + 1]; features float32 [N, H] or None.

    targets: the column `target` as Arrow stores it, None without one or where it is not needed. weights: float32 [N],
    None in the same cases. loss_mask: bool [sum of lengths], True for tokens in the loss; None without the column.
    pairs: facts about rows of two answers, whose tokens are joined; None for others.
    """

    ids: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    features: np.ndarray[Any, Any] | None
    targets: Any = None
    weights: np.ndarray[Any, Any] | None = None
    loss_mask: np.ndarray[Any, Any] | None = None
    pairs: Pairs | None = None

    @property
    def size(self) -> int:
        """Numbers in memory, of four bytes each."""
        masks = 0 if self.loss_mask is None else -(-len(self.loss_mask) // 4)
        return len(self.ids) + masks + (0 if self.features is None else self.features.size)


@dataclass(frozen=True)
class BlockPlace:
    """Location of a row group. remote: its bytes in object storage, where the shard may be removed from this disk."""

    shard: ShardFile
    group: int
    remote: GroupRange | None = None

    @property
    def is_here(self) -> bool:
        """True if the shard is on this machine."""
        return self.remote is None or self.shard.is_here

    def read(self) -> TokenBlock:
        """Read `input_ids` and, if there are any, `loss_mask` and `features`."""
        if self.remote is not None and not self.is_here:
            table = self.remote.read()
            if table is not None:
                return to_block(table)
        with self.shard.open() as file:
            return to_block(_read(file, self.group, COLUMNS))


def to_block(table: Any) -> TokenBlock:
    """Convert a table to arrays; the answers of pairs are joined. Raises DataError for a mask that does not belong to
    the tokens."""
    facts: dict[str, Any] = {
        "targets": table["target"] if "target" in table.column_names else None,
        "weights": table["weight"].to_numpy().astype(np.float32) if "weight" in table.column_names else None,
    }
    if REJECTED_IDS in table.column_names:
        ids, masks, counts, pairs = join_answers(table)
        offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return TokenBlock(ids, offsets, None, loss_mask=masks, pairs=pairs, **facts)
    features = mask = None
    if "loss_mask" in table.column_names:
        ids, mask, offsets = masked_tokens(table, "input_ids", "loss_mask")
    else:
        ids, offsets = flat_lists(table, "input_ids")
    if "features" in table.column_names:
        features = np.asarray(flat_lists(table, "features")[0], np.float32).reshape(len(table), -1)
    return TokenBlock(np.asarray(ids, np.int32), offsets, features, loss_mask=mask, **facts)


def first_pass(shards: Iterable[ShardFile], extra: Sequence[str]) -> Iterator[tuple[BlockPlace, TokenBlock]]:
    """Read all row groups in row order, with the `extra` columns that exist; shards are fetched one by one."""
    for shard in shards:
        with shard.open() as file, shard.local() as path, open(path, "rb") as raw:
            names = _existing(file, COLUMNS)
            for group in range(file.num_row_groups):
                remote = None
                if shard.origin is not None:
                    remote = GroupRange.of(shard, file, raw.fileno(), group, names)
                yield BlockPlace(shard, group, remote), to_block(_read(file, group, (*COLUMNS, *extra)))


def _read(file: Any, group: int, columns: Sequence[str]) -> Any:
    return file.read_row_group(group, columns=_existing(file, columns), use_threads=False)


def _existing(file: Any, columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name in file.schema_arrow.names]


class Blocks(NamedTuple):
    """Units in which rows are read, in row order: a window has as many as fit in the memory for one."""

    starts: np.ndarray[Any, Any]
    """Numbers of their first rows, and the end, int64 [B + 1]."""
    sizes: np.ndarray[Any, Any]
    """Numbers of four bytes that each takes in memory, int64 [B]."""
    window: int
    """Such numbers in a window."""


class BlockCache:
    """The blocks read last, at most `limit` numbers of four bytes in total, but at least one block."""

    def __init__(self, blocks: list[BlockPlace], limit: int) -> None:
        self.blocks, self.limit = blocks, limit
        self.size = self.reads = 0
        self._cached: OrderedDict[int, TokenBlock] = OrderedDict()

    def __getitem__(self, number: int) -> TokenBlock:
        found = self._cached.get(number)
        if found is not None:
            self._cached.move_to_end(number)
            return found
        return self._add(number, self.blocks[number].read())

    def several(self, numbers: Sequence[int]) -> Iterator[TokenBlock]:
        """Yield blocks in this order; some are fetched at a time from object storage."""
        for start in range(0, len(numbers), FETCHES):
            some = numbers[start : start + FETCHES]
            remote = [n for n in some if n not in self._cached and not self.blocks[n].is_here]
            fetched: dict[int, TokenBlock] = {}
            if len(remote) > 1:
                with ThreadPoolExecutor(FETCHES) as pool:
                    read = pool.map(lambda n: self.blocks[n].read(), remote)
                    fetched = {n: self._add(n, block) for n, block in zip(remote, read, strict=True)}
            for number in some:
                yield fetched[number] if number in fetched else self[number]

    def _add(self, number: int, found: TokenBlock) -> TokenBlock:
        self.reads += 1
        while self._cached and self.size + found.size > self.limit:
            self.size -= self._cached.popitem(last=False)[1].size
        self._cached[number] = found
        self.size += found.size
        return found
