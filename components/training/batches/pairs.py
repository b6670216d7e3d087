"""Rows of two answers for learning from preferences: their tokens are joined, the chosen answer before the rejected.

Both answers begin with the same prompt, which a row has once: attention of the second answer takes it from the first
(models/decoder/row_layout.py). The prompt's last token is repeated, since it predicts another token in each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError

REJECTED_IDS, REJECTED_MASK = "rejected_ids", "rejected_mask"
REFERENCES = ("reference_chosen", "reference_rejected")
PAIR_COLUMNS = (REJECTED_IDS, REJECTED_MASK, *REFERENCES)


@dataclass(frozen=True)
class Pairs:
    """Facts about N rows of two answers.

    firsts: tokens of the first, with its prompt, int32 [N]. shared: tokens at its start that the second begins with
    too, and that the row has once, int32 [N]. references: log-probabilities of both answers by the reference model,
    float32 [N, 2]; None where they were not computed.
    """

    firsts: Array
    shared: Array
    references: Array | None

    def rows(self, numbers: Any) -> Pairs:
        """Select rows by number."""
        references = None if self.references is None else self.references[numbers]
        return Pairs(self.firsts[numbers], self.shared[numbers], references)

    def answer_offsets(self, offsets: Array) -> Array:
        """Return where the tokens of each answer begin, and the end, int64 [2 N + 1]; offsets: of rows, int64 [N +
        1]."""
        starts = np.stack([offsets[:-1], offsets[:-1] + self.firsts], axis=1)
        return np.append(starts.ravel(), offsets[-1]).astype(np.int64)

    def answers_shared(self) -> Array:
        """Return the tokens that each answer shares with the one before it, int64 [2 N]: 0 for the first of a row."""
        return np.stack([np.zeros_like(self.shared), self.shared], axis=1).ravel().astype(np.int64)

    def longest(self, lengths: Array) -> int:
        """Return the tokens of the longest answer with its prompt; lengths: of the rows, int [N]."""
        return int(np.maximum(self.firsts, lengths - self.firsts + self.shared).max(initial=0))

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """Join the facts of several blocks of rows."""
        references = [part.references for part in parts if part.references is not None]
        firsts, shared = (np.concatenate([getattr(part, name) for part in parts]) for name in ("firsts", "shared"))
        return cls(firsts, shared, np.concatenate(references) if references else None)


def join_answers(table: Any) -> tuple[Array, Array, Array, Pairs]:
    """Join the answers of each row: ids int32 [T], loss mask bool [T], tokens a row int64 [N], and the facts.

    Raises DataError for masks that do not belong to the tokens, and a reference that is not finite.
    """
    first, second = (
        masked_tokens(table, *names) for names in (("input_ids", "loss_mask"), (REJECTED_IDS, REJECTED_MASK))
    )
    count = len(first[2]) - 1
    shared = np.zeros(count, np.int32)
    ids: list[Array] = []
    masks: list[Array] = []
    for row in range(count):
        mine, theirs = (slice(offsets[row], offsets[row + 1]) for _, _, offsets in (first, second))
        shared[row] = _shared(first[0][mine], first[1][mine], second[0][theirs], second[1][theirs])
        rest = slice(theirs.start + shared[row], theirs.stop)
        ids += [first[0][mine], second[0][rest]]
        masks += [first[1][mine], second[1][rest]]
    firsts = np.diff(first[2])
    lengths = firsts + np.diff(second[2]) - shared
    joined = [np.concatenate(each) if count else each[0][:0] for each in (ids or [first[0]], masks or [first[1]])]
    return joined[0], joined[1], lengths, Pairs(firsts.astype(np.int32), shared, _references(table))


def _shared(ids: Array, mask: Array, other_ids: Array, other_mask: Array) -> int:
    """Return the tokens that two answers share: those of the prompt that are equal in both, without the last one."""
    most = min(len(ids), len(other_ids))
    differ = (ids[:most] != other_ids[:most]) | mask[:most] | other_mask[:most]
    prompt = int(differ.argmax()) if differ.any() else most
    return max(prompt - 1, 0)


def masked_tokens(table: Any, ids: str, mask: str) -> tuple[Array, Array, Array]:
    """Return the tokens int32 [T], their mask bool [T], and where each row begins, and the end, int64 [N + 1].

    Raises DataError for a mask that does not belong to the tokens.
    """
    (tokens, offsets), (masks, starts) = (flat_lists(table, name) for name in (ids, mask))
    if not np.array_equal(offsets, starts):
        raise DataError(f"a row has a {mask} of another length than its {ids}", fix="run preprocess again")
    return np.asarray(tokens, np.int32), np.asarray(masks, np.bool_), offsets


def flat_lists(table: Any, name: str) -> tuple[Array, Array]:
    """Return the values of a column of lists, and where each row begins, and the end, int64 [N + 1]."""
    lists = table[name].combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return lists.flatten().to_numpy(zero_copy_only=False), offsets


def _references(table: Any) -> Array | None:
    if not all(name in table.column_names for name in REFERENCES):
        return None
    found = np.stack([table[name].to_numpy() for name in REFERENCES], axis=1).astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError("a row has a log-probability of the reference that is not finite", fix="run the step again")
    return found
