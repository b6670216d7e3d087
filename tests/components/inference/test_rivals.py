"""Two models on one test split: labels in another order, stored outputs, slices, speeds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import DataError, Dataset, Model
from raypath.components.core.columns import Column
from raypath.components.inference.backends.precision_config import Candidate, Choice, machine, write_choice
from raypath.components.inference.batch.rivals import Side, gather
from raypath.components.inference.batch.scoring import read_targets, save_outputs, score
from raypath.components.inference.batch.slices import column_slices
from raypath.components.models.metadata import read_metadata, write_metadata
from raypath.components.reports.evaluation.columns import slice_columns
from tests.tiny_classifier import tiny_classifier, tiny_dataset, tiny_report

LABELS, TURNED = ("bad", "good", "ok"), ("ok", "bad", "good")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("rivals") / "model", LABELS)


@pytest.fixture(scope="module")
def data(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    given = [LABELS[n % 3] for n in range(180)]
    return tiny_dataset(tmp_path_factory.mktemp("rivals") / "data", model, rows=180, labels=given)


def _side(folder: Path, model: Model, data: Dataset, right: float) -> Side:
    return Side(Path(model.uri), Path(tiny_report(folder, model, data, right).uri))


@pytest.mark.parametrize("kind", ["string", "set", "number"])
def test_models_with_labels_in_another_order_are_compared_by_name(kind: str, tmp_path: Path) -> None:
    one, other = (tiny_classifier(tmp_path / str(n), names, kind) for n, names in enumerate((LABELS, TURNED)))
    data = tiny_dataset(tmp_path / "data", one, rows=60)
    metric = "mae/bad" if kind == "number" else "f1/bad"
    new, old = (_side(tmp_path / f"r{n}", model, data, 0.8) for n, model in enumerate((one, other)))
    found = gather(new, old, data, metric)
    assert found.comparison.new == pytest.approx(found.comparison.old)
    assert found.comparison.won == found.comparison.lost == 0
    assert found.note == ""
    better = gather(_side(tmp_path / "better", one, data, 1.0), old, data, metric)
    assert (better.comparison.won, better.comparison.lost, better.comparison.chance > 0.9) == (12, 0, True)


def test_a_threshold_keeps_its_class_in_another_order(tmp_path: Path) -> None:
    one, other = (tiny_classifier(tmp_path / str(n), names) for n, names in enumerate((("no", "yes"), ("yes", "no"))))
    write_metadata(Path(other.uri), read_metadata(Path(other.uri)).model_copy(update={"thresholds": (0.99,)}))
    data = tiny_dataset(tmp_path / "data", one, rows=60, labels=["no", "yes"] * 30)
    found = gather(_side(tmp_path / "a", one, data, 1.0), _side(tmp_path / "b", other, data, 1.0), data, "accuracy")
    # No probability reaches the threshold of "no": all rows are "yes".
    assert (found.comparison.new, found.comparison.old, found.comparison.won) == (1.0, 0.5, 30)


def test_a_model_without_stored_outputs_is_run(model: Model, data: Dataset, tmp_path: Path) -> None:
    targets, outputs = score(Path(model.uri), data, 1)
    save_outputs(tmp_path, outputs)
    stored, run = (
        gather(_side(tmp_path / f"r{n}", model, data, 0.9), side, data, "macro_f1")
        for n, side in enumerate((Side(Path(model.uri), tmp_path), Side(Path(model.uri))))
    )
    assert stored.comparison == run.comparison
    assert (stored.note, run.note) == ("", "evaluated on this test split")
    np.testing.assert_array_equal(read_targets(read_metadata(Path(model.uri)), data), targets)
    (tmp_path / "test_outputs.npy").write_bytes(b"no array")
    again = gather(_side(tmp_path / "r2", model, data, 0.9), Side(Path(model.uri), tmp_path), data, "macro_f1")
    assert again.comparison == run.comparison


def test_the_classes_and_lengths_are_slices(model: Model, data: Dataset, tmp_path: Path) -> None:
    found = gather(_side(tmp_path / "a", model, data, 1.0), _side(tmp_path / "b", model, data, 0.5), data, "macro_f1")
    names = [each.name for each in found.slices]
    assert set(names[:3]) == {"class bad", "class good", "class ok"}
    assert len(names) == 7
    assert all(name.startswith("text length: ") and name.endswith(" characters") for name in names[3:])
    assert sum(each.comparison.rows for each in found.slices[3:]) == 180
    assert [each.comparison.gain for each in found.slices[:3]] == pytest.approx([0.5] * 3)


def test_the_slices_of_the_report_are_those_of_the_gate(tmp_path: Path) -> None:
    columns = (
        Column(name="colour", kind="category", stored="input.colour"),
        Column(name="new", kind="boolean", stored="input.new"),
        Column(name="price", kind="number", stored="input.price"),
    )
    colours = ["red"] * 40 + ["blue"] * 35 + ["rare"] * 5
    new = [None] * 10 + [True] * 40 + [False] * 30
    rows = {"input.colour": colours, "input.new": new, "input.price": [float(n % 2) for n in range(80)]}
    pq.write_table(pa.table(rows), tmp_path / "part.parquet")
    data = Dataset(uri=str(tmp_path), rows=80, columns=columns)
    found = {name: int(chosen.sum()) for name, chosen in column_slices(data)}
    shown = {f"{column.name}: {value}" for column in slice_columns(data) for value in column.values}
    assert {name: rows for name, rows in found.items() if not name.startswith("text length")} == {
        "colour: red": 40,
        "colour: blue": 35,
        "new: yes": 40,
        "new: no": 30,
        "price: 0": 40,
        "price: 1": 40,
    }
    assert shown - set(found) >= {"colour: rare"}, "too few rows to decide"
    assert set(found) <= shown


def test_speeds_count_where_the_champion_was_measured_on_such_a_machine(
    model: Model, data: Dataset, tmp_path: Path
) -> None:
    old = tiny_classifier(tmp_path / "old", LABELS)
    here = machine("cpu", 1)
    line = Candidate(precision="fp32", rows_per_second=250.0)
    sides = _side(tmp_path / "a", model, data, 1.0), _side(tmp_path / "b", old, data, 1.0)

    def speeds(threads: int = 1, speed: float = 400.0, **changes: object) -> tuple[float, float]:
        measured = here.model_copy(update=changes)
        write_choice(Path(old.uri), Choice(precision="fp32", machine=measured, table=(line,)))
        return gather(*sides, data, "accuracy", threads, speed=speed).speeds

    assert speeds() == (400.0, 250.0)
    assert speeds(threads=2) == (400.0, 0.0)
    assert speeds(architecture="vax") == (400.0, 0.0)
    assert speeds(speed=0.0) == (0.0, 0.0)


def test_other_labels_and_metrics_are_not_compared(model: Model, data: Dataset, tmp_path: Path) -> None:
    other = tiny_classifier(tmp_path / "other", ("bad", "good", "fine"))
    new = _side(tmp_path / "a", model, data, 1.0)
    with pytest.raises(DataError, match="other labels"):
        gather(new, Side(Path(other.uri)), data, "macro_f1")
    with pytest.raises(DataError, match="no metric r2"):
        gather(new, new, data, "r2")
