"""Statistics of parts, each collected alone, are those of one pass over all rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.inspection.collection.collector import collect
from raypath.components.inspection.collection.column_files import TYPES
from raypath.components.inspection.collection.tasks import PartCollector, PartSummary, join
from raypath.components.inspection.rows import Part
from raypath.components.inspection.statistics import Statistics
from tests.components.inspection.planted import texts


def _parts(label: str) -> list[Part]:
    """A source of three parts and one of one; later parts have classes in another order."""
    rows, names = texts(400)
    values: dict[str, list[Any]] = {
        "class": names,
        "set": [[name, "x"] if n % 3 else [] for n, name in enumerate(names)],
        "number": [[float(n)] for n in range(400)],
    }
    table = pa.table({"text": [None if n == 7 else row for n, row in enumerate(rows)]})
    if label:
        table = table.append_column("label", pa.array(values[label][200:] + values[label][:200]))
    ranges = (("train", 0, 90), ("train", 90, 110), ("train", 200, 50), ("test", 250, 150))
    return [
        Part(source, [table.slice(first, 20), table.slice(first + 20, count - 20)], source, first % 250)
        for source, first, count in ranges
    ]


def _joined(parts: Sequence[Part], folder: Path) -> Statistics:
    sources = [1, 1, 1, 2]
    folder.mkdir()
    collector = PartCollector(parts, sources, folder, None, True, 5)
    made = {number: collector({"number": number}) for number in (3, 0, 2, 1)}
    return join(collector, [PartSummary.model_validate_json(made[number][1]) for number in range(len(parts))])


@pytest.mark.parametrize("label", ["", "class", "set", "number"])
def test_parts_are_joined_in_their_order(tmp_path: Path, label: str) -> None:
    one = collect(_parts(label), tmp_path / "one", keep_words=True, seed=5)
    two = _joined(_parts(label), tmp_path / "two")
    for name in TYPES:
        assert np.array_equal(one.files.read(name), two.files.read(name)), name
    for field in ("rows", "label_kind", "classes", "sets", "places"):
        assert getattr(one, field) == getattr(two, field), field
    assert two.places.of(260).model_dump() == {"source": "test", "row": 11}
    for field in ("rows", "draws", "of", "words"):
        assert np.array_equal(getattr(one.sample, field), getattr(two.sample, field)), field
    assert one.sample.names == two.sample.names
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["all"]


def test_long_texts_are_inspected_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.inspection.collection import collector

    whole = collect(_parts("class"), tmp_path / "whole")
    monkeypatch.setattr(collector, "BYTES", 1_000)
    small = collect(_parts("class"), tmp_path / "small")
    for name in TYPES:
        assert np.array_equal(whole.files.read(name), small.files.read(name)), name
    pairs = [sorted(zip(each.sample.of.tolist(), each.sample.words.tolist(), strict=True)) for each in (whole, small)]
    assert pairs[0] == pairs[1]
