"""Made-up preferences for tiny decoders: the chosen answer repeats the question's words, shifted; the rejected one
shifts them by more."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column
from raypath.components.models.base_models import tokenizer_digest

GOOD, BAD = 10, 20
"""Shifts of the chosen and of the rejected answer."""
IDS, MASK = pa.list_(pa.int32()), pa.list_(pa.bool_())


def answer(words: Any, shift: int) -> tuple[list[int], list[bool]]:
    """Ids and mask of a question and its answer."""
    ids = [3, *words.tolist(), 4, *(words + shift).tolist(), 2]
    return ids, [place > len(words) + 1 for place in range(len(ids))]


def questions(count: int, seed: int = 0, longest: int = 8) -> list[Any]:
    """Words of questions."""
    rng = np.random.default_rng(seed)
    return [rng.integers(10, 14, length) for length in rng.integers(2, longest + 1, count)]


def pair_table(count: int, seed: int = 0) -> pa.Table:
    """Preprocessed rows of two answers; the rejected one is shorter by a word where there are several."""
    found = questions(count, seed)
    chosen = [answer(words, GOOD) for words in found]
    rejected = []
    for words in found:
        ids, mask = answer(words, BAD)
        rejected.append((ids[:-2] + ids[-1:], mask[:-2] + mask[-1:]))
    return pa.table(
        {
            "input_ids": pa.array([ids for ids, _ in chosen], IDS),
            "loss_mask": pa.array([mask for _, mask in chosen], MASK),
            "rejected_ids": pa.array([ids for ids, _ in rejected], IDS),
            "rejected_mask": pa.array([mask for _, mask in rejected], MASK),
        }
    )


def labelled_table(count: int, seed: int = 0) -> pa.Table:
    """Preprocessed rows of one answer each, labelled good or bad in turn."""
    made = [answer(words, (BAD, GOOD)[row % 2]) for row, words in enumerate(questions(count, seed))]
    targets = np.arange(count) % 2
    return pa.table(
        {
            "label": pa.array([("false", "true")[target] for target in targets]),
            "input_ids": pa.array([ids for ids, _ in made], IDS),
            "loss_mask": pa.array([mask for _, mask in made], MASK),
            "target": pa.array(targets, pa.int32()),
        }
    )


def write_rows(folder: Path, base: Path, table: pa.Table, seed: int = 0) -> Dataset:
    """A preprocessed Dataset of these rows."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "00000.parquet")
    labelled = "target" in table.column_names
    return Dataset(
        uri=str(folder),
        digest=f"{seed}" * 64,
        rows=len(table),
        labels=("false", "true") if labelled else (),
        label_kind="bool" if labelled else "none",
        columns=(Column(name="answers", kind="messages" if labelled else "preference", stored="input.answers"),),
        form="fields",
        source="made up",
        tokenizer=tokenizer_digest(base),
        max_length=64,
    )
