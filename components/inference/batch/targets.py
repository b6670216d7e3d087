"""The column `label` of a dataset as the targets of a model: by class name, not by the dataset's own numbers."""

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
    """One class a row: int64 [N]."""

    labels: tuple[str, ...]
    columns = ("label",)

    def __call__(self, batch: Any) -> Array:
        return _numbers(_complete(batch), self.labels)


@dataclass(frozen=True)
class Sets:
    """Any number of classes a row: 0 or 1, float32 [N, K]."""

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
    """Several numbers a row: float32 [N, T]; order: the column of each target."""

    order: tuple[int, ...]
    columns = ("label",)

    def __call__(self, batch: Any) -> Array:
        lists = _complete(batch)
        if not pc.all(pc.equal(pc.list_value_length(lists), len(self.order))).as_py() and len(lists):
            raise DataError(f"the test part has a row without {len(self.order)} targets", fix="read it again")
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        if not np.isfinite(flat).all():
            raise DataError("the test part has a target that is NaN or infinite", fix="leave such rows out of the data")
        return np.asarray(flat.reshape(-1, len(self.order))[:, self.order])


@dataclass(frozen=True)
class Nothing:
    """No labels: zeros, int64 [N]."""

    columns = ()

    def __call__(self, batch: Any) -> Array:
        return np.zeros(batch.num_rows, dtype=np.int64)


def target_reader(metadata: ModelMetadata, data: Dataset) -> Classes | Sets | Numbers | Nothing:
    """What reads a batch's targets for a model; `columns` names what it needs.

    Raises DataError for labels of another form than the model's, or other targets than its own.
    """
    wanted, got = metadata.label_kind.general, data.label_kind.general
    if wanted is LabelKind.NONE:
        return Nothing()
    if wanted != got:
        what = f"the test part has labels of kind {data.label_kind}; the model was trained on {metadata.label_kind}"
        raise DataError(what, fix=f"read it with -s read.kind={wanted}")
    if wanted is not LabelKind.NUMBER:
        return Sets(metadata.labels) if wanted is LabelKind.SET else Classes(metadata.labels)
    names = data.labels or metadata.labels
    if sorted(names) != sorted(metadata.labels):
        what = f"the test part has the targets {', '.join(names)}; the model's are {', '.join(metadata.labels)}"
        raise DataError(what, fix="name the same columns with -s read.label=")
    return Numbers(tuple(names.index(name) for name in metadata.labels))


def _complete(batch: Any) -> Any:
    label = batch.column("label")
    if label.null_count:
        raise DataError("the test part has a row without a label", fix="leave such rows out of the data")
    return label


def _numbers(names: Any, labels: tuple[str, ...]) -> Array:
    """Class numbers int64 [N]. Raises DataError for a class that the model does not know."""
    found = pc.index_in(names.cast(pa.string()), pa.array(labels, pa.string()))
    if found.null_count:
        # Which label it is stays unsaid: it is the user's data.
        raise DataError("the test part has a label that the model never saw", fix="train and test on the same classes")
    return np.asarray(found.to_numpy(zero_copy_only=False).astype(np.int64))
