"""Log-probabilities of answers by the reference model as table columns: what the step `score_reference` adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.core.files import new_file
from raypath.components.models.base_models import weights_digest
from raypath.components.models.process import configure_process
from raypath.components.tasks.preference import answer_scores
from raypath.components.training.batches.pairs import REFERENCES, REJECTED_IDS, REJECTED_MASK

FIELDS = (
    pa.field(REJECTED_IDS, pa.list_(pa.int32())),
    pa.field(REJECTED_MASK, pa.list_(pa.bool_())),
    *(pa.field(name, pa.float32()) for name in REFERENCES),
)
SCORED_ROWS = 128
"""Rows that are scored together, and then kept: the most work that an interruption costs."""
TOKENS = {"cpu": 2_048, "cuda": 32_768}


@dataclass(frozen=True)
class ReferenceScores:
    """Scores of rows by the model in `folder`.

    threads: of torch; precision: auto, fp32 or bf16; max_length: of a row in tokens, 0 for any.
    """

    folder: Path
    threads: int
    precision: str
    max_length: int

    @property
    def name(self) -> str:
        """Digest of the reference's weights, recorded in the Dataset."""
        return weights_digest(self.folder)

    @staticmethod
    def schema(schema: pa.Schema) -> pa.Schema:
        """Return the schema of rows with scores. Columns that rows have already are kept."""
        return pa.schema([*schema, *(field for field in FIELDS if field.name not in schema.names)])

    def with_second_answers(self, table: pa.Table) -> pa.Table:
        """Return rows with a second answer each, see `with_second_answers`."""
        return with_second_answers(table, self.max_length)

    def of(self, table: pa.Table) -> Array:
        """Compute the log-probabilities of both answers of each row, summed over their tokens in the loss, float32 [N,
        2]."""
        found: Array = self._model(table)
        return found

    @cached_property
    def _model(self) -> Any:
        configure_process(self.threads)
        return _Reference(self.folder, self.precision)


class _Reference:
    """The reference model: rows to the log-probabilities of their answers."""

    def __init__(self, folder: Path, precision: str) -> None:
        import torch

        from raypath.components.models.adapters import open_model
        from raypath.components.models.bf16 import uses_bf16
        from raypath.components.models.decoder.packed_decoder import PackedDecoder

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.bf16 = uses_bf16(precision)
        self.model = PackedDecoder(open_model(folder).to(self.device)).eval()

    def __call__(self, table: pa.Table) -> Array:
        import torch

        from raypath.components.training.batches.sampler import plan_inference
        from raypath.components.training.batches.token_dataset import in_memory

        rows = in_memory(table)
        found = np.empty((len(rows), 2), np.float32)
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            for chosen in plan_inference(rows.lengths, TOKENS[self.device], padded=False):
                batch = {name: value.to(self.device) for name, value in rows.packed(chosen).items()}
                found[chosen] = answer_scores(self.model, batch)[:, 0].float().cpu().numpy().reshape(-1, 2)
        return found


def with_second_answers(table: pa.Table, max_length: int = 0) -> pa.Table:
    """Return rows with a second answer each; single ones get that of the next row, the last one that of the first.

    Such an answer is cut to `max_length`, 0 for any: only the mean of its log-ratio is used, without a gradient.
    """
    if REJECTED_IDS in table.column_names:
        return table
    ids, masks = table["input_ids"].to_pylist(), table["loss_mask"].to_pylist()
    starts = [mask.index(True) for mask in masks]
    made: tuple[list[Any], list[Any]] = [], []
    for row, start in enumerate(starts):
        other = (row + 1) % len(ids)
        most = max_length or None
        made[0].append([*ids[row][:start], *ids[other][starts[other] :]][:most])
        made[1].append([*masks[row][:start], *masks[other][starts[other] :]][:most])
    for field, values in zip(FIELDS, made, strict=False):
        table = table.append_column(field, pa.array(values, field.type))
    return table


def add_scores(table: pa.Table, scores: Array) -> pa.Table:
    """Append the scores of both answers, float32 [N, 2], or replace those that are there."""
    for number, name in enumerate(REFERENCES):
        column = pa.array(np.ascontiguousarray(scores[:, number]), pa.float32())
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    return table


def kept_scores(path: Path, compute: Callable[[], Array]) -> Array:
    """Return the scores in a file; compute and write them if there is none that is intact."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        found = compute()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with new_file(path) as file:
        np.save(file, found)
    return found
