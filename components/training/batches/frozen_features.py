"""Features of a frozen encoder as a table column: the map function of the step `extract`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.context import ShardStorage
from raypath.components.models.base_models import weights_digest
from raypath.components.models.process import configure_process
from raypath.components.training.batches.stored_folder import StoredFolder

FEATURES = pa.field("features", pa.list_(pa.float32()))
INLINE_ROWS = 20_000
"""Below this many rows, one process with all cores finishes before Ray Data workers have loaded the model."""
TOKENS = {"cpu": 2_048, "cuda": 65_536}


@dataclass(frozen=True)
class Features:
    """Add `features` to a table with `input_ids`. Raises DataError for a base whose head does not read the first token.

    folder: the base model; threads: of torch; precision: auto, fp32 or bf16; separator: see ModelMetadata.
    """

    folder: Path
    threads: int
    precision: str
    separator: int | None = None
    stored: StoredFolder | None = None
    """Where the encoder is fetched from by tasks that run on other nodes than the step."""

    @property
    def name(self) -> str:
        """Digest of the encoder's weights, recorded in the Dataset."""
        return weights_digest(self.folder)

    def alone(self) -> Features:
        """Return the same function for one of several workers, with one CPU thread each."""
        return replace(self, threads=1)

    def stored_in(self, storage: ShardStorage, staging: Path) -> Features:
        """Return the same function for any node: its encoder is uploaded. staging: a folder for temporary copies.

        All nodes compute in the precision that is chosen here, whatever their processors have.
        """
        from raypath.components.models.bf16 import uses_bf16

        precision = "bf16" if uses_bf16(self.precision) else "fp32"
        return replace(self, precision=precision, stored=StoredFolder.of(self.folder, storage, staging))

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table["input_ids"].to_pylist()
        states = _encoder(self)(rows)  # float32 [B, H]
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * states.shape[1]
        return table.append_column(FEATURES, pa.ListArray.from_arrays(pa.array(offsets), pa.array(states.ravel())))


@lru_cache(maxsize=1)  # a Ray Data worker calls it once for each block of rows
def _encoder(features: Features) -> Any:
    configure_process(features.threads)
    with features.stored.fetch() if features.stored else contextlib.nullcontext(features.folder) as folder:
        return _Encoder(str(folder), features.precision, features.separator)


class _Encoder:
    """The base model without its head: token ids to the last hidden state of the first token."""

    def __init__(self, folder: str, precision: str, separator: int | None) -> None:
        import torch

        from raypath.components.models.base_models import build_model
        from raypath.components.models.bf16 import uses_bf16
        from raypath.components.models.encoders.fast_bert import read_first_token_only
        from raypath.components.models.encoders.segments import add_segments
        from raypath.components.models.heads.head_check import check_head

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = build_model("AutoModelForSequenceClassification", folder, ("0", "1"), 0.0)
        check_head(model)
        add_segments(model, separator)
        read_first_token_only(model)
        self.base = model.base_model.to(self.device).eval()
        self.pad = int(getattr(model.config, "pad_token_id", None) or 0)
        self.bf16 = uses_bf16(precision)

    def __call__(self, rows: list[list[int]]) -> np.ndarray[Any, Any]:
        import torch

        from raypath.components.training.batches.sampler import plan_inference

        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        found: Any = None
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            for chosen in plan_inference(lengths, TOKENS[self.device]):
                ids = np.full((len(chosen), int(lengths[chosen].max(initial=1))), self.pad, dtype=np.int64)
                mask = np.arange(ids.shape[1]) < lengths[chosen][:, None]
                ids[mask] = np.concatenate([rows[n] for n in chosen])
                given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
                states = self.base(**{name: value.to(self.device) for name, value in given.items()})
                first = states.last_hidden_state[:, 0].float().cpu().numpy()
                found = np.empty((len(rows), first.shape[1]), np.float32) if found is None else found
                found[chosen] = first
        return np.asarray(found)
