"""`raypath comply`: the table, JSON, the page, what changed, the exit status for CI; and `raypath.review`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import raypath
from raypath.components.compliance.page import render
from raypath.components.compliance.profile import Profile
from raypath.components.compliance.regime import load_regime
from raypath.components.compliance.review import NO_ADVICE, Review, review
from raypath.components.core.errors import ParamsError, UserError
from raypath.deploy.api.security.evidence.collect import collect
from raypath.deploy.cli import main as cli
from raypath.deploy.console.run_report import console
from raypath.deploy.store.retention import write_days
from tests.deploy.api.security.reviewed_home import ReviewedHome, data_report

REVIEW = ("comply", "review", "--regime", "gdpr")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReviewedHome:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(console, "_width", 200)
    made = ReviewedHome(tmp_path)
    made.run(read__uri="data.csv", inspected=data_report(email=3))
    return made


def _ran(capsys: pytest.CaptureFixture[str], *args: str, status: int = 0) -> str:
    assert cli.main(args) == status
    out = capsys.readouterr()
    return out.err if status == 2 else out.out


def _outcomes(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, str]:
    return {item["id"]: item["outcome"] for item in json.loads(_ran(capsys, *REVIEW, "--json", *args))["items"]}


def test_the_table_has_evidence_and_remedy(home: ReviewedHome, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [" ".join(line.split()) for line in _ran(capsys, *REVIEW, "-s", "children=false").splitlines()]
    assert lines[1] == NO_ADVICE
    assert any(line.endswith(NO_ADVICE) for line in lines[-2:])
    assert "not met Art. 5(1)(e) Personal data is kept for no longer than its purpose needs;" in "\n".join(lines)
    assert any(line.endswith("raypath retention set artifacts=90 scratch=90 predictions=90") for line in lines)
    assert "Art. 8" not in "\n".join(lines)
    shown = _ran(capsys, *REVIEW, "-s", "children=false", "--all")
    assert "compliance.yaml says children: false" in shown


def test_answers_come_from_the_file_and_the_line(home: ReviewedHome, capsys: pytest.CaptureFixture[str]) -> None:
    assert _outcomes(capsys)["children"] == "unknown"
    (home.folder / "compliance.yaml").write_text("children: false\ntransfers: false\n")
    assert _outcomes(capsys)["children"] == "not applicable"
    assert _outcomes(capsys, "-s", "children=true")["children"] == "unknown"
    (home.folder / "other.yaml").write_text("children: true\n")
    assert _outcomes(capsys, "--profile", "other.yaml")["transfers"] == "unknown"
    (home.folder / "compliance.yaml").write_text("personal_data: false\n")
    denied = _outcomes(capsys)
    assert (denied["data-known"], denied["lawfulness"]) == ("not met", "unknown"), "not believed: e-mail was found"
    assert "unknown setting childen; did you mean children?" in _ran(capsys, *REVIEW, "-s", "childen=no", status=2)


def test_the_exit_status_is_for_ci(home: ReviewedHome, capsys: pytest.CaptureFixture[str]) -> None:
    _ran(capsys, *REVIEW)
    assert "open items of severity high" in _ran(capsys, *REVIEW, "--fail-on", "high", status=1)
    assert json.loads(_ran(capsys, *REVIEW, "--fail-on", "any", "--json", status=1))["regime"] == "gdpr"
    found = raypath.review("gdpr")
    low = found.model_copy(update={"items": [item for item in found.items if item.severity == "low"]})
    assert low.failed("any")
    assert not low.failed("medium")
    assert not low.failed(None)


def test_items_of_a_later_day_do_not_fail(home: ReviewedHome) -> None:
    dates = []
    for day in (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 8, 2, tzinfo=UTC)):
        found = review(load_regime("eu-ai-act"), collect(home.home, day), Profile())
        item = next(each for each in found.items if each.article == "Art. 14")
        assert item.outcome == "unknown"
        dates.append((str(item.applies_from), item in found.failed("high")))
    assert dates == [("2026-08-02", False), ("None", True)]


def test_a_review_is_compared_with_an_earlier_one(home: ReviewedHome, capsys: pytest.CaptureFixture[str]) -> None:
    _ran(capsys, *REVIEW, "-o", "out")
    write_days(home.home, {"artifacts": 90, "scratch": 30, "predictions": 30})
    earlier = ("--against", "out/review.json")
    shown = _ran(capsys, *REVIEW, "-o", "out", *earlier)
    assert "Art. 5(1)(e) storage-limits: not met -> met" in shown
    assert "<h2>Changes</h2>" in (home.folder / "out" / "review.html").read_text()
    assert ": none" in _ran(capsys, *REVIEW, *earlier)
    other = ("comply", "review", "--regime", "hipaa", *earlier)
    assert "is a review by gdpr; give one by hipaa" in _ran(capsys, *other, status=2)
    assert "is no review" in _ran(capsys, *REVIEW, "--against", "none.json", status=2)


def test_the_page_is_closed_and_escapes(home: ReviewedHome, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "<script>alert(1)</script> says Eve"
    _ran(capsys, "comply", "state", "purpose", "--by", "Eve <b>", "--text", evil)
    found = raypath.review("gdpr", {"children": False})
    page = render(found)
    assert "&lt;script&gt;alert(1)" in page
    assert "Eve &lt;b&gt;" in page
    assert page.count(NO_ADVICE) == 2
    assert not re.search(r"<script|<link|src=|https?://", page)
    assert [item.id for item in found.items if item.id not in {"x"} and item.requirement not in page] == []
    assert Review.model_validate_json(found.model_dump_json()) == found
    table = _ran(capsys, *REVIEW)
    assert "[b" not in table
    assert evil in table


def test_statements_from_the_command_line(home: ReviewedHome, capsys: pytest.CaptureFixture[str]) -> None:
    state = ("comply", "state", "dpia", "--by", "Ana Novak", "--text", "Assessed in May; the risk is low.")
    assert "dpia: stated by Ana Novak, valid until " in _ran(capsys, *state, "--valid", "30d")
    made = json.loads(_ran(capsys, *state, "--json"))
    assert (made["topic"], made["by"], made["document"]) == ("dpia", "Ana Novak", "")
    assert "--valid got 'ever'; give days, such as 365d" in _ran(capsys, *state, "--valid", "ever", status=2)
    assert _outcomes(capsys)["impact-assessment"] == "met"
    topics = _ran(capsys, "comply", "topics")
    assert re.search(r"^dpia +Where the assessment .*\(gdpr, pipl\)$", topics, re.M)


def test_no_home_and_no_regime(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no home"):
        raypath.review("gdpr", home=tmp_path / "none")
    with pytest.raises(ParamsError, match="no regime ccpa"):
        raypath.review("ccpa", home=tmp_path)
    assert not (tmp_path / "none").exists()


def test_a_statement_is_shown_as_it_is(home: ReviewedHome, capsys: pytest.CaptureFixture[str]) -> None:
    """Its text might end with a backslash, or look like markup."""
    text = "see [/bold] in the folder C:\\dpia\\"
    _ran(capsys, "comply", "state", "dpia", "--text", text, "--by", "Ms [X]")
    shown = " ".join(_ran(capsys, *REVIEW, "--all").split())
    assert f": {text}" in shown
    assert "stated by Ms [X] on" in shown
    assert f"{text} [/]" not in shown
