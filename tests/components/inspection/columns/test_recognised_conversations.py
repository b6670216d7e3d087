"""Conversations are recognised by the names and the values of the columns; other data is not taken for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components.inspection.report import InspectionReport
from raypath.deploy.api.inspection import inspect
from raypath.deploy.cli import main as cli
from raypath.deploy.execution.overrides import from_file
from raypath.workflows.chat import Chat
from raypath.workflows.preference import Preferences

TURNS = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes, please."}]
SHARED = [{"from": "human", "value": "Tea?"}, {"from": "gpt", "value": "Yes, please."}]
ROWS = 30


def written(path: Path, row: Any) -> Path:
    """Write 30 rows made of their number, with a text that differs in each."""
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(ROWS)))
    return path


def report_of(tmp_path: Path, row: Any, **settings: str) -> InspectionReport:
    changes = {"inspect.base": "none", **{key.replace("__", "."): value for key, value in settings.items()}}
    return inspect(written(tmp_path / "mine.jsonl", row), changes, apply=tmp_path / "p.yaml")


def said(report: InspectionReport) -> str:
    return next(finding.text for finding in report.findings if finding.kind == "columns")


@pytest.mark.parametrize(
    ("row", "form", "line", "roles"),
    [
        (lambda n: {"messages": TURNS}, "messages", "lists of messages", {"messages": "messages"}),
        (lambda n: {"id": n, "conversations": SHARED}, "messages", "lists of messages", {"conversations": "messages"}),
        (
            lambda n: {"instruction": f"Say {n}", "input": "a b c" if n % 2 else "", "output": f"It is {n} now"},
            "alpaca",
            "instructions with outputs",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            lambda n: {"prompt": f"Is {n} even?", "completion": "yes" if n % 2 else "no"},
            "prompt",
            "prompts with completions",
            {"prompt": "prompt", "completion": "completion"},
        ),
        (
            lambda n: {"prompt": f"Say {n}", "chosen": f"{n} it is", "rejected": f"{n} it is not"},
            "preference",
            "pairs of a chosen and a rejected answer",
            {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        ),
        (
            lambda n: {"chosen": [*TURNS[:1], {"role": "assistant", "content": f"{n}"}], "rejected": TURNS},
            "preference",
            "pairs of a chosen and a rejected answer",
            {"chosen": "chosen", "rejected": "rejected"},
        ),
    ],
    ids=["openai", "sharegpt", "alpaca", "prompts", "pairs", "pairs of conversations"],
)
def test_forms(tmp_path: Path, row: Any, form: str, line: str, roles: dict[str, str]) -> None:
    report = report_of(tmp_path, row)
    columns = ", ".join(name for name in roles)
    assert said(report).startswith(f"recognised {line} (read.conversations={form}) in ")
    assert {column.name: column.role for column in report.columns if column.role} == roles, columns
    assert report.conversations is not None
    assert report.rows == ROWS
    workflow = Preferences() if form == "preference" else Chat()
    read = workflow.override(from_file(tmp_path / "p.yaml")).read
    assert (read.uri, read.conversations, read.label) == (str(tmp_path / "mine.jsonl"), form, None)


def test_labels_of_good_and_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(tmp_path, lambda n: {"prompt": f"Say {n}", "completion": f"{n} it is", "label": n % 2 == 0})
    assert said(report).endswith("in prompt, completion; column label marks responses as good or bad")
    assert [(each.label, each.rows) for each in report.classes] == [("true", 15), ("false", 15)]
    assert "rare_classes" not in {finding.kind for finding in report.findings}
    assert from_file(tmp_path / "p.yaml")["read.label"] == "label"
    line = ["inspect", str(tmp_path / "mine.jsonl"), "-s", "inspect.base=none", "--apply", str(tmp_path / "q.yaml")]
    assert cli.main(line) == 0
    assert f"raypath run preference -f {tmp_path / 'q.yaml'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "row",
    [
        lambda n: {"input": f"text number {n} of all", "target": "ab"[n % 2]},
        lambda n: {"question": f"Is {n} even?", "answer": f"{n} is what it is", "label": n % 2 == 0},
        lambda n: {"chat": f"we talked about {n} today", "label": "ab"[n % 2]},
        lambda n: {"text": f"text number {n} of all", "label": "ab"[n % 2]},
    ],
    ids=["classes", "labelled pairs of texts", "a column of transcripts", "texts"],
)
def test_other_data_is_not_taken_for_conversations(tmp_path: Path, row: Any) -> None:
    report = report_of(tmp_path, row)
    assert report.conversations is None
    assert said(report).startswith("the text is column ")
    assert report.label_kind == "class"


def test_settings_decide(tmp_path: Path) -> None:
    def row(n: int) -> Any:
        return {"prompt": f"Say {n}", "completion": f"{n} it is"}

    report = report_of(tmp_path, row, read__text="prompt")
    assert report.conversations is None
    (tmp_path / "p.yaml").unlink()
    report = report_of(tmp_path, row, read__conversations="prompt", read__inputs="completion,prompt")
    assert said(report).endswith("in completion, prompt")
    assert from_file(tmp_path / "p.yaml")["read.inputs"] == "completion,prompt"


def test_rows_without_a_valid_conversation_are_counted(tmp_path: Path) -> None:
    report = report_of(tmp_path, lambda n: {"messages": TURNS if n else [TURNS[0], TURNS[0]]})
    [found] = [each for each in report.findings if each.kind == "invalid"]
    assert (found.count, found.rows[0].row, found.severity) == (1, 1, "error")
    assert found.text.startswith("1 row (3.3%) has no valid conversation")
    assert from_file(tmp_path / "p.yaml")["read.nulls"] == "drop"
