"""Facts about a dataset from which settings are chosen: rows, classes, lengths of texts; and a sample of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset, Splits
from raypath.components.core.labels import LabelKind

if TYPE_CHECKING:
    import pyarrow as pa

    from raypath.components.training.batches.token_dataset import TokenDataset

SAMPLE_ROWS = 2_048
"""Rows of train whose texts are tokenized."""
SLICES = 32
"""Places of a large split that the sample is read from."""
_LAYERS, _WIDTHS = ("num_hidden_layers", "n_layers", "n_layer"), ("hidden_size", "dim", "n_embd", "d_model")
LONGEST = 2_048
"""Tokens to which lengths are counted for a base without a limit."""


@dataclass(frozen=True)
class DataFacts:
    """Facts about the rows of a training.

    rows, valid_rows: of train and valid; counts: rows of each class in train, () for numbers; lengths: int [S], tokens
    of a sample of texts, before truncation; limit: most tokens of the base; layers, width: of its encoder, 0 for
    unknown ones.
    """

    rows: int
    valid_rows: int
    counts: tuple[int, ...]
    lengths: Array
    limit: int | None
    layers: int
    width: int = 0
    source: str = ""
    has_features: bool = False

    @property
    def classes(self) -> int:
        """Number of classes; 0 for numbers."""
        return len(self.counts)

    def tokens(self, max_length: int) -> float:
        """Mean number of tokens of a row, truncated to `max_length`."""
        return float(np.minimum(self.lengths, max_length).mean()) if len(self.lengths) else 1.0


@dataclass(frozen=True)
class Sample:
    """Encoded rows of train, not truncated: a table with input_ids and target, and the dataset as it will be."""

    table: pa.Table
    train: Dataset

    def rows(self, max_length: int) -> TokenDataset:
        """Return the rows as a training reads them, truncated to `max_length` tokens."""
        from raypath.components.training.batches.targets import target_array
        from raypath.components.training.batches.token_dataset import TokenDataset

        ids = [np.asarray(row[:max_length], np.int32) for row in self.table["input_ids"].to_pylist()]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)])
        target = self.table["target"] if "target" in self.table.column_names else None
        targets = np.zeros(len(ids), np.int64)
        if target is not None:
            targets = target_array("the sample", target, len(self.train.labels))
        return TokenDataset(np.concatenate(ids), offsets, targets)


def sample_splits(splits: Splits, folder: Path, form: str, seed: int) -> tuple[DataFacts, Sample]:
    """Read facts and a sample from splits before `preprocess`. folder: the base model; form: setting of preprocess."""
    from raypath.components.data.encoding import EncodeRows, labels_of
    from raypath.components.data.rendering import Renderer, choose_form
    from raypath.components.data.tokenization.tokenizer import TextTokenizer, model_max_length

    train, limit = splits.train, model_max_length(folder)
    tokenizer = TextTokenizer(folder, min(limit or LONGEST, LONGEST))
    chosen = choose_form(train.columns, tokenizer.encodes_pairs(), form)
    labels = labels_of(train)
    rows = sample_rows(train, seed)
    rows = rows.drop_columns([name for name in ("input_ids", "target") if name in rows.column_names])
    table = EncodeRows(tokenizer, labels, Renderer(train.columns, chosen))(rows)
    encoded = train.model_copy(update={"labels": labels, "form": chosen})
    facts = _facts(encoded, splits.valid.rows, _lengths(table["input_ids"]), folder)
    return facts, Sample(table, encoded)


def facts_of(train: Dataset, valid_rows: int, folder: Path, seed: int) -> DataFacts:
    """Read facts from a dataset after `preprocess`; lengths are those of truncated texts."""
    return _facts(train, valid_rows, _lengths(sample_rows(train, seed)["input_ids"]), folder)


def sample_rows(data: Dataset, seed: int, most: int = SAMPLE_ROWS) -> pa.Table:
    """Read up to `most` rows at random: all of a small dataset are candidates, of a large one those at some places."""
    import pyarrow as pa

    from raypath.components.data.streaming.parquet import GROUP_ROWS
    from raypath.components.data.streaming.row_files import dataset_files

    files, rng = dataset_files(data.uri), np.random.default_rng(seed)
    near = min(data.rows, GROUP_ROWS * SLICES)
    width = -(-near // SLICES)
    starts = np.unique(np.linspace(0, max(0, data.rows - width), SLICES).astype(int))
    if near == data.rows:
        starts, width = np.array([0]), data.rows
    tables = [part for start in starts for part in files.read(int(start), width)]
    table = pa.concat_tables(tables)
    chosen = np.sort(rng.permutation(table.num_rows)[:most])
    return table.take(pa.array(chosen)).combine_chunks()


def _facts(train: Dataset, valid_rows: int, lengths: Array, folder: Path) -> DataFacts:
    from raypath.components.data.tokenization.tokenizer import model_max_length

    layers, width = shape_of(folder)
    return DataFacts(
        rows=train.rows,
        valid_rows=valid_rows,
        counts=tuple(_counts(train).values()),
        lengths=lengths,
        limit=model_max_length(folder),
        layers=layers,
        width=width,
        source=train.source,
        has_features=bool(train.features),
    )


def _counts(train: Dataset) -> dict[str, int]:
    """Count the rows of each class; of sets, those that have it."""
    import pyarrow.compute as pc

    from raypath.components.data.streaming.parquet import label_kind_of, scan, schema_of

    kind = label_kind_of(schema_of(train.uri))
    if kind not in (LabelKind.CLASS, LabelKind.SET):
        return {}
    counts = dict.fromkeys(train.labels, 0)
    for label in _labels(scan(train.uri, ["label"]), kind):
        for each in pc.value_counts(label).to_pylist():
            counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
    return counts


def _labels(tables: Iterator[pa.Table], kind: LabelKind) -> Iterator[Any]:
    import pyarrow.compute as pc

    for table in tables:
        yield pc.list_flatten(table["label"]) if kind is LabelKind.SET else table["label"]


def _lengths(column: Any) -> Array:
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(column).to_numpy(), np.int64)


def shape_of(folder: Path) -> tuple[int, int]:
    """Return (layers, width) of an encoder by config.json; 0 for what is not there."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layers = next((int(config[name]) for name in _LAYERS if config.get(name)), 0)
        return layers, next((int(config[name]) for name in _WIDTHS if config.get(name)), 0)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0, 0
