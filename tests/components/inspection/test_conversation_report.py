"""The data report of conversations: their make-up, prompts and answers, lengths by the chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import raypath
from raypath.components import Context, Splits
from raypath.components.data.columns.conversations.messages import conversation_of
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.inspection.report import InspectionReport
from raypath.components.models.base_models import DEFAULT_BASE
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split
from tests.components.models.chat_template.styles import write_style

TOOL = {"type": "function", "function": {"name": "brew"}}
CALL = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "brew", "arguments": "{}"}}]}


def messages(number: int) -> list[dict[str, Any]]:
    """Conversation `number`: every tenth has a system message, every 20th two answers, 15 of 60 one and the same."""
    answer = "I cannot help with that" if number % 4 == 0 else f"answer {number} is one two three"
    turns = [f"question {number // 2} about tea?", answer]
    turns += ["again?", f"mail me at {number}@tea.org"] if number % 20 == 0 else []
    roles = ("user", "assistant", "user", "assistant")
    found = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    return [{"role": "system", "content": "be brief"}, *found] if number % 10 == 0 else found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chats") / "chat.jsonl"
    rows: list[dict[str, Any]] = [{"messages": messages(number)} for number in range(60)]
    asked = {"role": "user", "content": "brew tea"}
    rows.append({"messages": [asked, CALL], "tools": [TOOL]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_style(tmp_path_factory.mktemp("base"), "qwen")


def of_kind(report: InspectionReport, kind: str) -> Any:
    return next((finding for finding in report.findings if finding.kind == kind), None)


def test_a_file_of_conversations(file: Path, base: Path) -> None:
    settings = {"inspect.base": str(base), "inspect.max_length": 60}
    report = raypath.inspect(file, settings)
    facts = report.conversations
    assert facts is not None
    assert facts.messages == {"min": 2, "median": 2, "95%": 3, "max": 5}
    assert facts.turns == {"min": 1, "median": 1, "95%": 1, "max": 2}
    assert facts.roles == {"system": 6, "user": 64, "assistant": 64}
    assert facts.traits == {"system message": 6, "several responses": 3, "tools": 1, "calls of tools": 1}
    assert facts.answer_words["median"] == 6
    template = ChatTemplate.load(base)
    lengths = [len(template.encode(conversation_of(line)).ids) for line in file.read_text().splitlines()]
    assert report.lengths is not None
    assert (report.lengths.unit, report.lengths.quantiles["max"]) == ("tokens", max(lengths))
    dropped = of_kind(report, "truncated")
    assert dropped.count == sum(length > 60 for length in lengths)
    assert "conversations" in dropped.text
    assert dropped.text.endswith("are dropped")
    repeated = of_kind(report, "repeated_answers")
    assert repeated.count == 12, "every 20th has another last answer"
    assert [place.row for place in repeated.rows[:2]] == [5, 9]
    shared = of_kind(report, "prompts_with_several_answers")
    assert (shared.count, shared.rows[0].row) == (24, 4)
    assert of_kind(report, "personal_data").count == 3
    assert "be brief" not in report.model_dump_json()


def test_the_report_of_a_run_has_prompts_that_leak(
    file: Path, base: Path, make_context: Callable[..., Context], settle: Callable[[Context, Any], Any]
) -> None:
    ctx = make_context("read")
    data = settle(ctx, read.fn(ctx, ReadParams(uri=str(file), conversations="auto", label=None)))
    ctx = make_context("split")
    splits: Splits = settle(ctx, split.fn(ctx, data, SplitParams(valid=0.2, test=0.2)))
    ctx = make_context("inspect")
    made = inspect.fn(ctx, splits, InspectParams(base=str(base)))
    assert made.rows == 61
    report = InspectionReport.model_validate_json((ctx.out / "report.json").read_text())
    leaks = of_kind(report, "prompt_leaks")
    assert leaks.count > 0
    assert {place.source for place in leaks.rows} == {"train"}
    assert "with another response" in leaks.text
    page = (ctx.out / "report.html").read_text()
    assert "<h2>Conversations</h2>" in page
    assert '<td >messages</td><td class="number">2</td>' in page
    assert page.index("Messages by role") < page.index("<bdi>assistant</bdi>")


def test_preferences_and_bases_without_an_end_token(tmp_path: Path, base: Path) -> None:
    rows = [{"prompt": f"tea {n}?", "chosen": "yes " * 30, "rejected": "no " * 40} for n in range(3)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = raypath.inspect(path, {"inspect.base": str(base)})
    assert report.conversations is not None
    assert report.conversations.answer_words == {"min": 30, "median": 30, "95%": 30, "max": 30}
    assert report.lengths is not None
    assert report.lengths.quantiles["min"] > 40, "the longer answer counts"
    report = raypath.inspect(path, {"inspect.base": DEFAULT_BASE})
    assert any(line.startswith("lengths by a chat template: ") for line in report.skipped)
