"""Privacy of persons through the steps of a workflow, from a column of a CSV file to the record of the model."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, Splits
from raypath.components.configure import configure
from raypath.components.core.errors import DataError
from raypath.components.extract import ExtractParams, extract
from raypath.components.finetune import finetune
from raypath.components.models.metadata import read_metadata
from raypath.components.preprocess import preprocess
from raypath.components.read import read
from raypath.components.split import split
from raypath.components.training.differential_privacy.units import group_units
from raypath.workflows.text_classification import TextClassification

PERSONS, MOST = 40, 3
Settle = Callable[[Context, Any], Any]


def _write(path: Path) -> Path:
    """Write rows of 40 persons, 1 to 8 of each, in an order in which they are mixed."""
    rng = np.random.default_rng(0)
    persons = [n for n in range(PERSONS) for _ in range(1 + n % 8)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "topic", "customer"])
        for person in rng.permutation(persons):
            topic = ("good", "bad")[int(rng.integers(2))]
            writer.writerow([f"{topic} tea {rng.integers(1_000)}", topic, f"customer-{person}"])
    return path


def _workflow(
    make: Callable[..., Context], settle: Settle, params: TextClassification, home: Path
) -> tuple[Splits, Path]:
    """Run the steps of text_classification up to finetune; return the splits and the model's folder."""

    def run(step: Any, *given: Any) -> Any:
        ctx = make(step.name, signing=home / "signing")
        return settle(ctx, step.fn(ctx, *given))

    splits = run(split, run(read, params.read), params.split)
    chosen = run(configure, splits, params.finetune, params.preprocess)
    splits = run(preprocess, splits, params.preprocess, chosen.inputs)
    splits = run(extract, splits, ExtractParams.of(params.finetune), chosen.finetune)
    model = run(finetune, splits.train, splits.valid, chosen.finetune, params.finetune)
    return splits, Path(model.uri)


@pytest.fixture
def settings(base: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "read": {"uri": str(_write(tmp_path / "rows.csv")), "text": "body", "label": "topic"},
        "split.valid": 0.2,
        "split.test": 0.2,
        "finetune": {"base": str(base), "epochs": 4},
        "finetune.privacy": {"epsilon": 8.0, "unit": "group", "rows_per_group": MOST, "batch_rows": 8},
    }


def test_the_rows_of_a_person_are_one_unit(
    settings: dict[str, Any], make_context: Callable[..., Context], settle: Settle, tmp_path: Path
) -> None:
    params = TextClassification().override(flat(settings) | {"read.group": "customer"})
    splits, model = _workflow(make_context, settle, params, tmp_path / "home")
    persons = [set(pq.read_table(data.uri)["group"].to_pylist()) for data in (splits.train, splits.valid, splits.test)]
    assert not persons[0] & (persons[1] | persons[2])
    record = read_metadata(model).privacy
    assert record is not None
    assert (record.unit, record.units, record.rows_per_unit) == ("group", len(persons[0]), MOST)
    assert record.events[-1].sampling_rate == pytest.approx(8 / len(persons[0]))
    assert 7.8 < record.epsilon <= 8.0
    # Units are those of the column, in the order of the rows that training reads.
    units, groups = group_units(splits.train.uri, MOST), pq.read_table(splits.train.uri)["group"].to_pylist()
    for unit in range(len(units)):
        rows = units.rows_of(np.array([unit]))
        assert 1 <= len(rows) <= MOST
        assert len({groups[row] for row in rows}) == 1
    assert units.left_out == sum(max(groups.count(person) - MOST, 0) for person in persons[0]) > 0
    # Whom the rows belong to is in neither the model nor the record of what was spent.
    for path in [*model.rglob("*"), *(tmp_path / "home").rglob("*.json")]:
        assert path.is_dir() or b"customer-" not in path.read_bytes(), path


def test_a_unit_without_its_column_is_named(
    settings: dict[str, Any], make_context: Callable[..., Context], settle: Settle, tmp_path: Path
) -> None:
    params = TextClassification().override(flat(settings))
    with pytest.raises(DataError, match=r"needs a column that says whom a row belongs to; name it with -s read.group="):
        _workflow(make_context, settle, params, tmp_path / "home")


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings by dotted name."""
    nested = {key: value for key, value in settings.items() if isinstance(value, dict)}
    return {key: value for key, value in settings.items() if key not in nested} | {
        f"{key}.{name}": value for key, values in nested.items() for name, value in values.items()
    }
