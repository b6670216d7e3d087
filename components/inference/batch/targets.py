"""Targets of a model from the column `label` of a dataset, matched by class name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata


@dataclass(frozen=True)
class Classes:
    """Single-class targets: int64 [N]."""

    labels: tuple[str, ...]
    columns = ("label",)

    def __call__(self, batch: Any) -> Array:
        return _numbers(_complete(batch), self.labels)


@dataclass(frozen=True)
class Sets:
    """Multi-label targets: 0 or 1, float32 [N, K]."""

    labels: tuple[str, ...]
    columns = ("label",)

    def __call__(self, batch: Any) -> Array:
        sets = _complete(batch)
        found = np.zeros((len(sets), len(self.labels)), dtype=np.float32)
        owners = np.repeat(np.arange(len(sets)), pc.list_value_length(sets).to_numpy(zero_copy_only=False))
        found[owners, _numbers(sets.flatten(), self.labels)] = 1.0
        return found


@dataclass(frozen=True)
class Numbers:
    """Regression targets: float32 [N, T]. order: column of each target."""

    order: tuple[int, ...]
    columns = ("label",)

    def __call__(self, batch: Any) -> Array:
        lists = _complete(batch)
        if not pc.all(pc.equal(pc.list_value_length(lists), len(self.order))).as_py() and len(lists):
            raise DataError(f"the test split has a row without {len(self.order)} targets", fix="read it again")
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        if not np.isfinite(flat).all():
            raise DataError(
                "the test split has a target that is NaN or infinite", fix="leave such rows out of the data"
            )
        return np.asarray(flat.reshape(-1, len(self.order))[:, self.order])


@dataclass(frozen=True)
class Nothing:
    """Targets of an unlabelled task: zeros, int64 [N]."""

    columns = ()

    def __call__(self, batch: Any) -> Array:
        return np.zeros(batch.num_rows, dtype=np.int64)


def target_reader(metadata: ModelMetadata, data: Dataset) -> Classes | Sets | Numbers | Nothing:
    """Return the reader of a batch's targets for a model; its `columns` are the columns it needs.

    Raises DataError if the labels' kind or the names of the targets differ from the model's.
    """
    wanted, got = LabelKind(metadata.label_kind).general, LabelKind(data.label_kind).general
    if wanted is LabelKind.NONE:
        return Nothing()
    if wanted != got:
        what = f"the test split has labels of kind {data.label_kind}; the model was trained on {metadata.label_kind}"
        raise DataError(what, fix=f"read it with -s read.kind={wanted}")
    if wanted is not LabelKind.NUMBER:
        return Sets(metadata.labels) if wanted is LabelKind.SET else Classes(metadata.labels)
    names = data.labels or metadata.labels
    if sorted(names) != sorted(metadata.labels):
        what = f"the test split has the targets {', '.join(names)}; the model's are {', '.join(metadata.labels)}"
        raise DataError(what, fix="name the same columns with -s read.label=")
    return Numbers(tuple(names.index(name) for name in metadata.labels))


def _complete(batch: Any) -> Any:
    label = batch.column("label")
    if label.null_count:
        raise DataError("the test split has a row without a label", fix="leave such rows out of the data")
    return label


def _numbers(names: Any, labels: tuple[str, ...]) -> Array:
    """Return class numbers, int64 [N]. Raises DataError for an unknown class."""
    found = pc.index_in(names.cast(pa.string()), pa.array(labels, pa.string()))
    if found.null_count:
        # The message does not contain the label, which is the user's data.
        raise DataError("the test split has a label that the model never saw", fix="train and test on the same classes")
    return np.asarray(found.to_numpy(zero_copy_only=False).astype(np.int64))
