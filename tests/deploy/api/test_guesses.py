"""`inspect` with guessed columns: which settings a guess makes, and the findings about them, in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components import DataError, ParamsError
from raypath.components.inspection.columns.guess import Guess, Profile
from raypath.components.inspection.findings.columns import missing_values
from raypath.components.inspection.report import Column, Severity
from raypath.components.read import ReadParams
from raypath.deploy.api.inspection import _chosen, _columns, _used, _with_guesses, _write_settings, inspect, page_of


def _guess(name: str, kind: str = "text", role: str = "") -> Guess:
    return Guess(name=name, kind=kind, why="long", role=role)


BODY, TOPIC = _guess("body", role="text"), _guess("topic", "category", "label")


@pytest.mark.parametrize(
    ("guesses", "profiles", "settings", "wanted"),
    [
        ([BODY, TOPIC], [], {}, {"text": "body", "label": "topic", "kind": "class"}),
        ([BODY], [], {}, {"text": "body", "label": None, "kind": "class"}),
        ([BODY, _guess("tags", "set", "label")], [], {}, {"text": "body", "label": "tags", "kind": "set"}),
        (
            [BODY, _guess("price", "number", "label"), _guess("part", "category", "split")],
            [Profile("body", rows=3), Profile("price", rows=3, forms={"comma": 2, "integer": 1})],
            {},
            {"text": "body", "label": "price", "kind": "number", "decimal": ",", "split": "part"},
        ),
        (
            [BODY, _guess("price", "number", "label"), _guess("part", "category", "split")],
            [Profile("price", rows=3, forms={"comma": 3, "integer": 0})],
            {"read.text": "text", "read.label": "label", "read.split": "split"},
            {"kind": "class"},
        ),
        (
            [BODY, _guess("price", "number", "label")],
            [Profile("price", rows=3, forms={"comma": 3, "integer": 0})],
            {"read.kind": "class", "read.decimal": "."},
            {"text": "body", "label": "price"},
        ),
        ([TOPIC], [], {"read.text": "text"}, {"label": "topic", "kind": "class"}),
    ],
)
def test_settings_of_a_guess(
    guesses: list[Guess], profiles: list[Profile], settings: dict[str, Any], wanted: dict[str, Any]
) -> None:
    found = _with_guesses(ReadParams(), {each.name: each for each in profiles}, guesses, settings)
    assert found == ReadParams().override(wanted)


def test_without_a_column_of_texts() -> None:
    guesses = [_guess(f"c{n}", "number") for n in range(9)]
    with pytest.raises(DataError) as told:
        _with_guesses(ReadParams(), {}, guesses, {})
    names = "c0, c1, c2, c3, c4, c5, c6, c7"
    assert str(told.value) == f"no column looks like a text; there is {names}; set -s read.text=COLUMN"
    inputs = ReadParams(inputs=("title", "body"))
    assert _with_guesses(inputs, {}, guesses, {}).inputs == ("title", "body")


def test_roles_of_columns() -> None:
    read = ReadParams(text="body", label="topic", split="part", group="author")
    names = ("body", "topic", "part", "author", "nr")
    profiles = {name: Profile(name, rows=3, missing=n, hashes={1, 2}) for n, name in enumerate(names)}
    found = _columns(profiles, [_guess(name) for name in names], read)
    assert [(each.name, each.role) for each in found] == [
        *(("body", "text"), ("topic", "label"), ("part", "split"), ("author", "group"), ("nr", "")),
    ]
    assert found[1] == Column(name="topic", kind="text", role="label", why="long", missing=1, distinct=2)


def test_empty_values() -> None:
    read = ReadParams(text="body", label="topic")
    profiles = [Profile("body", rows=2_000, missing=1_500), Profile("topic", rows=2_000)]
    used = _used(read, None)
    assert used == ("body", "topic")
    [found] = missing_values(profiles, used)
    assert (found.kind, found.severity, found.count, found.settings) == (
        *("missing", Severity.ERROR, 1_500),
        {"read.nulls": "drop"},
    )
    assert found.text == "column body is empty in 1,500 of 2,000 rows (75%); a run raises an error at the first"
    [one] = missing_values([Profile("topic", rows=2), Profile("other", rows=2, missing=1)], used)
    assert (one.severity, one.count, one.settings) == (Severity.NOTE, 1, {})
    assert one.text == "1 other column has empty values (other)"
    [more] = missing_values([Profile(f"c{n}", rows=2, missing=1) for n in range(6)], used)
    assert more.text == "6 other columns have empty values (c0, c1, c2, c3, c4, ...)"
    [text] = missing_values([Profile("text", rows=2, missing=1)], _used(ReadParams(inputs=("title",)), None))
    assert text.severity is Severity.NOTE, "it is none of the inputs"


def test_columns_that_were_chosen() -> None:
    found = _chosen(ReadParams(uri="a.csv", text="body", label="topic"), {})
    assert (found.kind, found.severity, found.count) == ("columns", Severity.NOTE, 2)
    assert found.text == "the text is column body, guessed; the label is column topic"
    assert found.settings == {"read.uri": "a.csv", "read.text": "body", "read.label": "topic"}
    read = ReadParams(uri="a.csv", inputs=("title", "body"), label=None, kind="number", decimal=",", split=None)
    found = _chosen(read, {"read.inputs": "title,body", "seed": 3})
    assert found.text == "the text is column title, body; the label is missing (read.label=COLUMN names it)"
    assert (found.count, found.settings) == (
        1,
        {
            **{"read.uri": "a.csv", "read.label": None, "read.kind": "number", "read.decimal": ",", "read.split": None},
            "read.inputs": "title,body",
        },
    )
    assert "guessed" not in _chosen(ReadParams(), {"read.text": "text"}).text


def test_settings_are_written_nested(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    _write_settings(file, {"read.uri": "ü.csv", "split.test": 0.1, "read.label": None, "seed": 3, "a.b.c": True})
    lines = ["read:", "  uri: ü.csv", "  label: null", "split:", "  test: 0.1", "seed: 3", "a:", "  b:", "    c: true"]
    assert file.read_text(encoding="utf-8").splitlines() == lines
    with pytest.raises(ParamsError) as told:
        _write_settings(tmp_path / "none" / "p.yaml", {})
    what = f"cannot write {tmp_path}/none/p.yaml: No such file or directory"
    assert str(told.value) == f"{what}; name another file with --apply"
    with pytest.raises(ParamsError) as there:
        inspect("a.csv", apply=file)
    assert str(there.value) == f"{file} exists; remove it, or name another file with --apply"
    assert page_of(tmp_path) == tmp_path / "report.html"
