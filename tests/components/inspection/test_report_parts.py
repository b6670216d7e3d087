"""Parts of the report: what is left out and why, settings of a run, files of columns, samples and places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.core.columns import Column, Role
from raypath.components.inspect import REPORTED, DataInspection
from raypath.components.inspection import build
from raypath.components.inspection.build import build_report
from raypath.components.inspection.collection import collector as collector_module
from raypath.components.inspection.collection import sample as sample_module
from raypath.components.inspection.collection.collector import Collector, collect
from raypath.components.inspection.collection.column_files import TYPES, ColumnFiles, read
from raypath.components.inspection.collection.sample import Sample, draws, joined
from raypath.components.inspection.features import MAX_LENGTH, _groups, _width, features, texts_at
from raypath.components.inspection.params import InspectParams
from raypath.components.inspection.rows import Part, Places, position_type, with_text
from raypath.components.models.base_models import DEFAULT_BASE
from tests.components.inspection.planted import part, texts

MODEL = "label errors, and texts far from others: set inspect.model=true to compute features"
WORDS = "lengths in tokens: no inspect.base is set, so words are counted"


def test_settings_of_the_report() -> None:
    assert InspectParams().model_dump() == {
        "enabled": True, "texts": False, "base": None, "max_length": 256, "model": False, "model_rows": 10_000,
        "similarity": 0.8, "min_test_rows": 10,
    }  # fmt: skip
    assert InspectParams().using("auto", "auto").model_dump() == InspectParams(base=DEFAULT_BASE).model_dump()
    assert InspectParams(base="mine").using("other", 64) == InspectParams(base="mine", max_length=64)
    inspection = DataInspection()
    assert (inspection.read.uri, inspection.seed, inspection.inspect) == ("", 0, InspectParams())
    assert REPORTED == ("leaks",)


def test_what_is_left_out(tmp_path: Path, base: Path) -> None:
    def skipped(**settings: Any) -> list[str]:
        params = InspectParams(**settings)
        return build_report("a", [part(*texts(20))], params, tmp_path / "columns")[0].skipped

    assert skipped() == [WORDS, MODEL]
    assert skipped(model=True) == [WORDS, MODEL], "features need a base"
    assert skipped(base=str(base), max_length=64) == [MODEL]
    [missing, _] = skipped(base=str(tmp_path / "none"))
    assert missing.startswith("lengths in tokens: ")


@pytest.mark.parametrize(
    ("module", "function", "name"),
    [
        (build.duplicates, "duplicates", "duplicates"),
        (build.labels, "labels", "labels"),
        (build.texts, "truncation", "truncation"),
        (build.texts, "languages", "languages"),
        (build.texts, "personal_data", "personal data"),
        (build.texts, "outliers", "outliers"),
        (build, "_by_model", "label errors"),
    ],
)
def test_a_part_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, function: str, name: str
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(module, function, fail)
    report, _, rows = build_report("a", [part(*texts(20))], InspectParams(), tmp_path)
    assert f"{name}: KeyError" in report.skipped
    assert [each.kind for each in report.findings] == [kind for kind, _ in rows]


def test_the_share_of_the_test_split_decides_what_is_rare(tmp_path: Path) -> None:
    def kinds(**fields: Any) -> list[str]:
        report = build_report("a", [part(*texts(150))], InspectParams(min_test_rows=4), tmp_path / "c", **fields)[0]
        return [each.kind for each in report.findings]

    assert kinds() == []
    assert kinds(test_share=0.05) == ["rare_classes"]


def test_columns_of_files(tmp_path: Path) -> None:
    assert {name: np.dtype(dtype).name for name, dtype in TYPES.items()} == {
        "present": "bool", "texts": "uint64", "codes": "int32", "numbers": "float64", "splits": "int8",
        "words": "int32", "lengths": "int32", "languages": "uint8", "personal": "uint8",
        "messages": "int32", **{f"role-{role}": "int32" for role in ("system", "user", "assistant", "tool")},
        "traits": "uint8", "prompts": "uint64", "answers": "uint64", "answer_words": "int32",
        **{f"shape-{n}": "float32" for n in range(6)},
        **{f"band-{n:02d}": "uint64" for n in range(16)},
    }  # fmt: skip
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "words").write_bytes(b"1234")
    files = ColumnFiles(tmp_path / "old")
    files.append("codes", np.array([1, 2]))
    files.append("codes", np.array([-1]))
    files.close()
    assert files.read("codes").tolist() == [1, 2, -1]
    assert (read(tmp_path / "old", "words").tolist(), read(tmp_path / "old", "words").dtype) == ([], np.int32)
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o700


def test_statistics_of_a_few_rows(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["One two one", None, "write to a@b.com", "One two one"],
            "label": ["x", "y", None, "x"],
            "split": ["train", "test", None, "other"],
        }
    )
    seen: list[int] = []
    found = collect([Part("a", [table.slice(0, 3), table.slice(3)])], tmp_path, None, True, seen.append)
    assert (found.rows, found.classes, found.sets, seen) == (4, ["x", "y"], [], [3, 1])
    assert found.present.tolist() == [True, False, True, True]
    assert found.codes.tolist() == [0, 1, -1, 0]
    assert found.splits.tolist() == [1, 3, 0, 0]
    assert found.words.tolist() == found.lengths.tolist() == [3, 0, 5, 3]
    assert found.personal.tolist() == [0, 0, 1, 0]
    assert (found.texts[0] == found.texts[3], found.texts[0] == found.texts[1]) == (True, False)
    assert found.numbers.tolist() == []
    assert (found.in_split("train").tolist(), found.in_split("test").any()) == ([True, False, False, False], False)
    assert found.class_rows().tolist() == [2, 0]
    assert sorted(found.sample.names.values()) == ["a", "b", "com", "one", "to", "two", "write"]
    counted = collect([Part("a", [table])], tmp_path, lambda rows: np.array([len(row) for row in rows]))
    assert counted.lengths.tolist() == [11, 0, 16, 11]
    assert counted.sample.names == {}


def test_sets_and_numbers(tmp_path: Path) -> None:
    sets = pa.array([["b", "a"], [], ["a", "b"], None], pa.list_(pa.string()))
    found = collect([Part("a", [pa.table({"text": list("abcd"), "label": sets})], "valid")], tmp_path)
    assert (found.label_kind, found.classes, found.sets) == ("set", ["b", "a"], [("a", "b"), ()])
    assert (found.codes.tolist(), found.splits.tolist()) == ([0, 1, 0, -1], [2] * 4)
    assert found.class_rows().tolist() == [2, 2]
    assert found.class_rows(np.array([True, True, False, True])).tolist() == [1, 1]
    numbers = pa.array([[1.5, 2.0], None], pa.list_(pa.float64()))
    found = collect([Part("a", [pa.table({"text": list("ab"), "label": numbers})])], tmp_path)
    assert (found.label_kind, found.codes.tolist(), found.numbers[0]) == ("number", [-1, -1], 1.5)
    assert np.isnan(found.numbers[1])


def test_the_sample_of_words_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "WORDS", 39)  # exactly those of the rows below 0.5
    collector = Collector(tmp_path, None, True, 0)
    table = pa.table({"text": [f"w{n} x{n} y{n} w{n}" for n in range(30)]})
    for start in range(0, 30, 10):
        collector.add(table.slice(start, 10), 0, start, "")
    collector.close()
    found = collector.statistics(Places()).sample
    numbers = draws(0, 0, 0, 30)
    assert found.limit == 0.5
    assert found.rows.tolist() == np.flatnonzero(numbers < 0.5).tolist()
    assert len(found.words) == 3 * len(found.rows), "each word once a row"
    assert len(found.names) == len(found.words)


def test_samples_are_moved_and_joined() -> None:
    one = Sample(np.array([0, 2]), np.array([0.1, 0.6]), np.array([0, 1, 1]), np.array([7, 7, 8]), names={7: "a"})
    moved = one.moved(5)
    assert (moved.rows.tolist(), moved.of.tolist(), moved.names) == ([5, 7], [0, 1, 1], {7: "a"})
    both = joined([one, one.within(0.5).moved(5)])
    assert (both.limit, both.rows.tolist(), both.of.tolist(), both.words.tolist()) == (0.5, [0, 5], [0, 1], [7, 7])
    assert both.names == {7: "a"}
    assert (joined([]).limit, joined([]).names) == (1.0, {})


def test_tables_are_divided_by_the_size_of_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collector_module.BYTES == 4 << 20
    table = pa.table({"text": ["x" * 100] * 10})
    for most, sizes in ((table["text"].nbytes, [10]), (table["text"].nbytes // 3 + 1, [3, 3, 3, 1]), (1, [1] * 10)):
        monkeypatch.setattr(collector_module, "BYTES", most)
        assert [len(piece) for piece in collector_module._pieces(table)] == sizes


def test_places_of_rows() -> None:
    places = Places()
    for source, first, position in (("a", 0, 0), ("a", 90, 90), ("b", 0, 200)):
        places.begin(Part(source, [], first=first), position)
    assert [(place.source, place.row) for place in places.some(np.array([0, 199, 200, 201]))] == [
        ("a", 1), ("a", 200), ("b", 1), ("b", 2),
    ]  # fmt: skip
    assert len(places.some(np.arange(11))) == 10
    assert (position_type(2**31 - 1), position_type(2**31)) == (np.int32, np.int64)


def test_the_text_of_several_inputs() -> None:
    columns = [
        Column(name="t", stored="input.t"),
        Column(name="g", stored="group", kind="category", role=Role.GROUP),
        Column(name="n", stored="input.n", kind="number"),
    ]
    table = pa.table({"input.t": ["a", None, None], "input.n": [1.0, 2.5, None], "group": ["x", "y", "z"]})
    assert with_text(table, columns)["text"].to_pylist() == ["a\x1f1", "\x1f2.5", None]
    plain = pa.table({"text": ["a"]})
    assert with_text(plain, columns) is plain


def test_groups_of_rows_for_a_model() -> None:
    assert [_width(length) for length in (0, 1, 16, 17, 32)] == [16, 16, 16, 32, 32]
    assert list(_groups([40, 3, 17, 16, 16], 64)) == [[1, 3, 4], [2], [0]]
    assert list(_groups([16] * 5, 32)) == [[0, 1], [2, 3], [4]]
    assert list(_groups([500], 64)) == [[0]]
    assert list(_groups([], 64)) == []


def test_texts_at_positions() -> None:
    parts = [Part("a", [pa.table({"text": list("abc")}), pa.table({"text": list("de")})]),
             Part("b", [pa.table({"text": list("fg")})])]  # fmt: skip
    assert texts_at(parts, np.array([0, 2, 3, 6])) == ["a", "c", "d", "g"]
    assert texts_at(parts, np.array([5])) == ["f"]
    assert texts_at(parts, np.array([], int)) == []


def test_features_have_length_one_and_do_not_depend_on_their_neighbours(base: Path) -> None:
    assert MAX_LENGTH == 128
    rows = ["a good text", "bad", "", "a good text of more words than the others have " * 3]
    together, alone = features(base, rows), features(base, rows[:1])
    assert (together.dtype, len(together)) == (np.float32, 4)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(together[0], alone[0], atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-3)
