"""The page of a report, piece by piece as HTML, and the files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.inspection.page.render import render, write_report
from raypath.components.inspection.report import (
    ClassCount,
    Column,
    Finding,
    InspectionReport,
    Lengths,
    Place,
    Severity,
    by_severity,
)
from raypath.components.inspection.rows import Places

HEAD = (
    '<table><thead><tr><th>column</th><th>role</th><th>kind</th><th class="number">missing</th>'
    '<th class="number">distinct</th><th>why</th></tr></thead><tbody>'
)
LINE = (
    '<tr><td class="name"><bdi>n</bdi></td><td></td><td>text</td><td class="number">1,200</td>'
    '<td class="number">10,000</td><td class="why">w &amp; v</td></tr>'
)
ROLE = (
    '<tr><td class="name"><bdi>l</bdi></td><td>label</td><td>category</td><td class="number">0</td>'
    '<td class="number">10,000+</td><td class="why">x</td></tr>'
)
PLAIN = Column(name="n", kind="text", why="w & v", missing=1_200, distinct=10_000)
LABEL = Column(name="l", kind="category", role="label", why="x", missing=0, distinct=10_001)
FOOT = (
    "<p>All row numbers are in rows.csv, counted from 1 without the header; all values in report.json. "
    "Languages are told by scripts and function words, personal data by patterns: both are estimates.</p></footer>"
)


def _report(**fields: Any) -> InspectionReport:
    empty: dict[str, Any] = {"columns": [], "classes": [], "findings": [], "skipped": []}
    empty |= {"splits": {}, "languages": {}, "personal_data": {}, "lengths": None, "label_kind": "class"}
    return InspectionReport(**({"source": "a<b>.csv", "rows": 1} | empty | fields))


def _bar(name: str, width: str, count: str) -> str:
    return f'<span title="{name}"><bdi>{name}</bdi></span><i><b style="width: {width}%"></b></i><em>{count}</em>'


def _finding(**fields: Any) -> Finding:
    return Finding(**({"kind": "z", "severity": Severity.NOTE, "text": "t", "count": 1} | fields))


FINDINGS = [
    _finding(
        kind="near_duplicates",
        severity=Severity.WARNING,
        text="2 < 3",
        count=12,
        rows=[Place(source="a", row=3), Place(source="b", row=5), Place(source="a", row=17)],
        settings={"split.duplicates": "drop", "read.label": None, "x.y": True, "a.b": 2},
        examples=["p", "q"],
    ),
    _finding(rows=[Place(source="a", row=3)]),
    _finding(),
]


def test_an_empty_report() -> None:
    page = render(_report())
    assert "<title>Data report · a&lt;b&gt;.csv</title>" in page
    head = '<h1>a&lt;b&gt;.csv</h1><p class="lead">Data report, 1 row</p><ul class="counts"></ul>'
    found = '<h2>Findings</h2><p class="card">Nothing was found.</p>'
    assert f'{head}\n{found}\n\n<div class="columns"></div>\n<footer>{FOOT}\n' in page
    assert "<p>Left out: languages: a &amp; b</p><p>Left out: c</p>" + FOOT in render(
        _report(skipped=["languages: a & b", "c"])
    )


def test_the_head_counts_findings_and_rows() -> None:
    page = render(_report(rows=1_234, splits={"train": 1_200, "test": 34}, findings=FINDINGS))
    tone = 'style="color: var(--tone)"'
    assert (
        f'Data report, 1,234 rows</p><ul class="counts"><li class="warning" {tone}>1 warning</li>'
        f'<li class="note" {tone}>2 notes</li><li>train 1,200</li><li>test 34</li></ul>'
    ) in page


def test_findings_have_rows_examples_and_settings() -> None:
    assert (
        '<h2>Findings</h2><section class="card finding warning"><p class="kind">warning · near duplicates</p>'
        '<p>2 &lt; 3</p><p class="rows">Rows 3, 17 of a; row 5 of b and more</p><p class="rows">Such as p, q</p>'
        "<code>-s split.duplicates=drop</code><code>-s read.label=none</code><code>-s x.y=true</code>"
        '<code>-s a.b=2</code></section><section class="card finding note"><p class="kind">note · z</p><p>t</p>'
        '<p class="rows">Row 3 of a</p></section><section class="card finding note"><p class="kind">note · z</p>'
        "<p>t</p></section>"
    ) in render(_report(findings=FINDINGS))


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ([PLAIN, LABEL], f"{HEAD}{ROLE}{LINE}</tbody></table></div>"),
        ([PLAIN] * 12, f"{HEAD}{LINE * 12}</tbody></table></div>"),
        (
            [PLAIN] * 13,
            f"{HEAD}{LINE * 12}</tbody></table><details><summary>1 more column</summary>{HEAD}{LINE}</tbody></table>"
            "</details></div>",
        ),
        (
            [PLAIN, PLAIN] + [LABEL] * 13,
            f"{HEAD}{ROLE * 13}</tbody></table><details><summary>2 more columns</summary>{HEAD}{LINE * 2}</tbody>"
            "</table></details></div>",
        ),
    ],
)
def test_columns_with_a_role_come_first_and_many_others_are_folded(columns: list[Column], wanted: str) -> None:
    assert f'<h2>Columns</h2><div class="card scroll">{wanted}' in render(_report(columns=columns))


def test_classes_languages_and_personal_data_are_bars() -> None:
    def classes(number: int) -> str:
        return render(_report(classes=[ClassCount(label=f"c{n}", rows=20 - n) for n in range(number)]))

    assert f'<h2>Classes</h2><div class="bar">{_bar("c0", "100.0", "20 · 51%")}</div>' in classes(2)
    assert "more class" not in classes(15)
    last = _bar("c14", "30.0", "6 · 3.0%")
    assert f'{last}</div><p class="rows">and 1 more class, in report.json</p></section>' in classes(16)
    assert '<p class="rows">and 2 more classes, in report.json</p></section>' in classes(17)
    languages = {name: 90 - n for n, name in enumerate(["en", "de", "fr", "es", "it", "nl", "pt", "sv", "da"])}
    page = render(_report(languages=languages))
    assert f'<h2>Languages</h2><div class="bar">{_bar("en", "100.0", "90 · 12%")}</div>' in page
    assert f"{_bar('sv', '92.2', '83 · 11%')}</div></section></div>" in page
    assert "<bdi>da" not in page
    kinds = ["email", "url", "ip", "card", "iban", "resident_id", "phone"]
    page = render(_report(rows=10, personal_data={kind: 8 - n for n, kind in enumerate(kinds)}))
    assert f'<h2>Personal data</h2><div class="bar">{_bar("e-mail address", "80.0", "8 · 80%")}</div>' in page
    for name in ("URL", "IP address", "card number", "IBAN", "Chinese resident ID", "phone number"):
        assert f"<bdi>{name}</bdi>" in page


LENGTHS = Lengths(
    unit="tokens",
    quantiles={"min": 1, "median": 12, "max": 3_000},
    edges=[n * 100 for n in range(25)],
    histogram=[5, 10, 0, *[0] * 20, 1],
    max_length=200,
    truncated=1_234,
)


def test_lengths_are_a_histogram_with_a_line_at_the_maximum() -> None:
    page = render(_report(lengths=LENGTHS))
    assert (
        '<section class="card"><h2>Length in tokens</h2><svg viewBox="0 0 480 152" role="img">'
        '<rect class="bars" x="20.0" y="70.0" width="16.3" height="60.0" rx="1.5"><title>0 or more: 5</title></rect>'
        '<rect class="bars" x="38.3" y="10.0" width="16.3" height="120.0" rx="1.5"><title>100 or more: 10</title>'
        '</rect><rect class="over" x="56.7" y="130.0" width="16.3" height="0.0" rx="1.5"><title>200 or more: 0</title>'
    ) in page
    labels = ((20, "0"), (130, "600"), (240, "1,200"), (350, "1,800"), (460, "2,400"))
    ticks = "".join(f'<text x="{x}.0" y="146" text-anchor="middle">{label}</text>' for x, label in labels)
    assert (
        '<rect class="over" x="441.7" y="118.0" width="16.3" height="12.0" rx="1.5"><title>2300 or more: 1</title>'
        '</rect><line x1="20" x2="460" y1="130" y2="130"/>'
        f'<line class="limit" x1="56.7" x2="56.7" y1="5" y2="130"/>{ticks}</svg>'
        '<p class="rows">min 1, median 12, max 3,000; 1,234 above 200</p></section>'
    ) in page
    for most, shown in ((2_399, True), (2_400, False)):
        page = render(_report(lengths=LENGTHS.model_copy(update={"max_length": most})))
        assert ('<line class="limit"' in page) is shown, most
    empty = LENGTHS.model_copy(update={"histogram": [0] * 24})
    assert 'y="130.0" width="16.3" height="0.0"' in render(_report(lengths=empty))


def test_the_files(tmp_path: Path) -> None:
    places = Places(["a.csv", "=b.csv"], [0, 100])
    report = _report(findings=FINDINGS)
    write_report(tmp_path, report, places, [("x", np.array([0, 99, 100])), ("y", np.array([101]))])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(report)
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == report.model_dump_json(indent=2) + "\n"
    lines = ["finding,source,row", "x,a.csv,1", "x,a.csv,100", "x,'=b.csv,1", "y,'=b.csv,2", ""]
    assert (tmp_path / "rows.csv").read_bytes().decode() == "\n".join(lines)


def test_settings_of_all_findings_and_their_order() -> None:
    error = _finding(severity=Severity.ERROR, settings={"a.b": 1, "c.d": 3})
    report = _report(findings=[error, *FINDINGS])
    wanted = {"a.b": 1, "c.d": 3, "split.duplicates": "drop", "read.label": None, "x.y": True}
    assert report.settings() == wanted
    assert [report.count(each) for each in Severity] == [1, 1, 2]
    assert by_severity([*FINDINGS[1:], FINDINGS[0], error]) == [error, FINDINGS[0], *FINDINGS[1:]]
    assert places_of([99, 100]) == [("a", 100), ("b", 1)]


def places_of(positions: list[int]) -> list[tuple[str, int]]:
    return [(place.source, place.row) for place in Places(["a", "b"], [0, 100]).some(np.array(positions))]
