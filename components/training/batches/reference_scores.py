"""Log-probabilities of answers by the reference model as table columns: what the step `score_reference` adds."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.core.context import ShardStorage
from raypath.components.models.base_models import weights_digest
from raypath.components.models.process import configure_process
from raypath.components.tasks.preference import answer_scores
from raypath.components.training.batches.pairs import REFERENCES, REJECTED_IDS, REJECTED_MASK
from raypath.components.training.batches.stored_folder import StoredFolder

FIELDS = (
    pa.field(REJECTED_IDS, pa.list_(pa.int32())),
    pa.field(REJECTED_MASK, pa.list_(pa.bool_())),
    *(pa.field(name, pa.float32()) for name in REFERENCES),
)
SCORED_ROWS = 128
"""Rows that are scored together; in one process, the most work that an interruption costs."""
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
    stored: StoredFolder | None = None
    """Where the model is fetched from by tasks that run on other nodes than the step."""

    def alone(self) -> ReferenceScores:
        """Return the same scores for one of several workers, with one CPU thread each."""
        return replace(self, threads=1)

    def stored_in(self, storage: ShardStorage, staging: Path) -> ReferenceScores:
        """Return the same scores for any node: the model is uploaded. staging: a folder for temporary copies.

        All nodes compute in the precision that is chosen here, whatever their processors have.
        """
        from raypath.components.models.adapters import is_adapter, open_model
        from raypath.components.models.bf16 import uses_bf16

        folder = self.folder
        if is_adapter(folder):  # their base may be on this node alone
            folder = staging / "merged"
            open_model(self.folder).save_pretrained(folder)
        precision = "bf16" if uses_bf16(self.precision) else "fp32"
        return replace(self, precision=precision, stored=StoredFolder.of(folder, storage, staging))

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
        found: Array = _model(self)(table)
        return found

    def release(self) -> None:
        """Release the memory of the model."""
        _model.cache_clear()


@lru_cache(maxsize=1)  # a Ray Data worker is called once for each chunk of rows
def _model(scores: ReferenceScores) -> _Reference:
    configure_process(scores.threads)
    with scores.stored.fetch() if scores.stored else contextlib.nullcontext(scores.folder) as folder:
        return _Reference(folder, scores.precision)


class _Reference:
    """The reference model: rows to the log-probabilities of their answers."""

    def __init__(self, folder: Path, precision: str) -> None:
        import torch

        from raypath.components.models.adapters import open_model
        from raypath.components.models.bf16 import uses_bf16
        from raypath.components.models.decoder.packed_decoder import PackedDecoder
        from raypath.components.models.trainable.lora import halve_frozen

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.bf16 = uses_bf16(precision)
        model = open_model(folder).requires_grad_(False)
        self.model = PackedDecoder(model.to(self.device)).eval()
        if self.bf16:
            halve_frozen(model, plain=True)

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
