"""Conversations and preferences in every form and file format: recognised, checked and stored in OpenAI's form."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError
from raypath.components.core.conversations import Conversation, Preference
from raypath.components.data.streaming import stream
from raypath.components.read import ReadParams, read
from tests.components.reading import Read

ASK: dict[str, Any] = {"role": "user", "content": "Tea?"}
YES: dict[str, Any] = {"role": "assistant", "content": "Yes ☕"}
NO: dict[str, Any] = {"role": "assistant", "content": "No"}
BE: dict[str, Any] = {"role": "system", "content": "Be short"}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "brew", "arguments": '{"cups": 2}'}}],
}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "c1", "content": "done"}
TOOL = {"type": "function", "function": {"name": "brew", "parameters": {"type": "object"}}}
STORED_CALL = {**CALL, "content": ""}


def parts(message: dict[str, Any], role: str = "") -> dict[str, Any]:
    """The same message with its text in two parts."""
    text = [{"type": "text", "text": message["content"][:2]}, {"type": "text", "text": message["content"][2:]}]
    return {"role": role or message["role"], "content": text}


FORMS: dict[str, tuple[dict[str, Any], str, list[dict[str, Any]]]] = {
    "openai": ({"messages": [BE, ASK, YES]}, "messages", [BE, ASK, YES]),
    "parts": ({"messages": [parts(BE, "developer"), parts(ASK), parts(YES)]}, "messages", [BE, ASK, YES]),
    "tools": ({"messages": [ASK, CALL, RESULT, YES], "tools": [TOOL]}, "messages", [ASK, STORED_CALL, RESULT, YES]),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Tea?"}, {"from": "gpt", "value": "Yes ☕"}],
            "system": "Be short",
        },
        "messages",
        [BE, ASK, YES],
    ),
    "alpaca": (
        {"instruction": "Tea?", "input": "Or milk?", "output": "Yes ☕"},
        "alpaca",
        [{"role": "user", "content": "Tea?\n\nOr milk?"}, YES],
    ),
    "prompt": ({"prompt": "Tea?", "completion": "Yes ☕"}, "prompt", [ASK, YES]),
    "turns": ({"prompt": [BE, ASK], "completion": [YES]}, "prompt", [BE, ASK, YES]),
    "question": ({"question": "Tea?", "answer": "Yes ☕"}, "prompt", [ASK, YES]),
    "text": ({"text": "Yes ☕"}, "text", [YES]),
    "records": (
        {"prompt": '{"asked": "Tea?"}', "completion": '[{"cups": 2}]'},
        "prompt",
        [{"role": "user", "content": '{"asked": "Tea?"}'}, {"role": "assistant", "content": '[{"cups": 2}]'}],
    ),
    "instructed records": (
        {"instruction": "Tea?", "output": '{"role of milk": null}'},
        "alpaca",
        [ASK, {"role": "assistant", "content": '{"role of milk": null}'}],
    ),
    "transcript": ({"prompt": "\n\nHuman: Tea?\n\nAssistant:", "completion": "Yes ☕"}, "prompt", [ASK, YES]),
}
PAIRS: dict[str, dict[str, Any]] = {
    "strings": {"prompt": "Tea?", "chosen": "Yes ☕", "rejected": "No"},
    "messages": {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
    "whole": {"chosen": [ASK, YES], "rejected": [ASK, NO]},
    "ignored": {"prompt": "Tea?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
    "prompt transcript": {"prompt": "\n\nHuman: Tea?\n\nAssistant: ", "chosen": "Yes ☕", "rejected": "No"},
    "messages as prompt": {"messages": [ASK], "chosen": "Yes ☕", "rejected": "No"},
    "openai": {"input": {"messages": [ASK]}, "preferred_output": [YES], "non_preferred_output": [NO]},
    "transcript": {"chosen": "\n\nHuman: Tea?\n\nAssistant: Yes ☕", "rejected": "\n\nHuman: Tea?\n\nAssistant: No"},
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format of the name; cells of CSV have lists as JSON."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            cells = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
            writer.writerows(cells)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str, suffix: str, tmp_path: Path, reading: Read, caplog: pytest.LogCaptureFixture) -> None:
    row, form, wanted = FORMS[name]
    path = write(tmp_path / f"chat{suffix}", [row, row])
    with caplog.at_level(logging.INFO, "raypath"):
        made, rows = reading(path, conversations="auto", label=None)
    [said] = [message for message in caplog.messages if "recognised" in message]
    assert f"(read.conversations={form}) in {next(iter(row))}" in said
    [column] = made.columns
    assert (column.name, column.kind, column.stored) == ("messages", "messages", "input.messages")
    for stored in rows:
        found = Conversation.loads(stored["input.messages"])
        assert list(found.messages) == wanted
        assert found.tools == ((TOOL,) if name == "tools" else ())
        assert found.dumps() == stored["input.messages"]
    assert reading(path, conversations=form, label=None)[1] == rows


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("name", PAIRS)
def test_preferences(name: str, suffix: str, tmp_path: Path, reading: Read) -> None:
    path = write(tmp_path / f"pairs{suffix}", [PAIRS[name]])
    made, [row] = reading(path, conversations="auto", label=None)
    assert [(column.name, column.kind) for column in made.columns] == [("preference", "preference")]
    assert Preference.loads(row["input.preference"]) == Preference((ASK,), (YES,), (NO,))  # type: ignore[arg-type]


def test_answers_that_are_records_are_text_in_pairs_too(tmp_path: Path, reading: Read) -> None:
    row = {"prompt": "Tea?", "chosen": '{"cups": 2}', "rejected": '[{"cups": 3}]'}
    _, [found] = reading(write(tmp_path / "pairs.jsonl", [row]), conversations="auto", label=None)
    stored = Preference.loads(found["input.preference"])
    assert [each[0]["content"] for each in (stored.chosen, stored.rejected)] == [row["chosen"], row["rejected"]]


def test_numbers_in_place_of_text(tmp_path: Path, reading: Read) -> None:
    rows = [{"prompt": 4, "completion": value} for value in (7, 1.5, True)]
    _, found = reading(write(tmp_path / "a.jsonl", rows), conversations="auto", label=None)
    texts = [[each["content"] for each in Conversation.loads(row["input.messages"]).messages] for row in found]
    assert texts == [["4", "7"], ["4", "1.5"], ["4", "true"]]


def test_a_file_of_another_form_is_named(tmp_path: Path, make_context: Callable[..., Context]) -> None:
    write(tmp_path / "train.jsonl", [{"messages": [ASK, YES]}])
    write(tmp_path / "test.jsonl", [{"instruction": "Tea?", "output": "Yes"}])
    wanted = r"test\.jsonl has instructions with outputs, not lists of messages; give files of one form"
    with pytest.raises(DataError, match=wanted):
        read.fn(make_context("read"), ReadParams(uri=str(tmp_path), conversations="auto", label=None))
    params = ReadParams(uri=str(tmp_path / "test.jsonl"), conversations="prompt", inputs=("instruction",), label=None)
    with pytest.raises(DataError, match=r"read\.inputs has 1 column; conversations=prompt needs 2; "):
        read.fn(make_context("read"), params)


def test_labels_of_good_and_bad(tmp_path: Path, reading: Read) -> None:
    rows = [{"prompt": "Tea?", "completion": f"Yes {n}", "label": n % 2 == 0, "who": "me"} for n in range(4)]
    made, found = reading(write(tmp_path / "kto.jsonl", rows), conversations="auto", group="who")
    assert made.label_kind == "bool"
    assert [row["label"] for row in found] == ["true", "false"] * 2
    assert [column.role for column in made.columns] == ["input", "target", "group"]


def test_keys_that_only_later_rows_have(tmp_path: Path, reading: Read) -> None:
    rows = [{"messages": [ASK, YES]}, {"messages": [ASK, CALL, RESULT, YES], "tools": [TOOL]}]
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl", rows[:1])
    _, found = reading(tmp_path, conversations="auto", label=None)
    assert [len(Conversation.loads(row["input.messages"]).tools) for row in found] == [0, 1, 0]


def test_columns_of_other_names(tmp_path: Path, reading: Read) -> None:
    path = write(tmp_path / "a.jsonl", [{"frage": "Tea?", "reply": "Yes ☕", "better": "Yes ☕", "worse": "No"}])
    _, [row] = reading(path, conversations="prompt", inputs=("frage", "reply"), label=None)
    assert list(Conversation.loads(row["input.messages"]).messages) == [ASK, YES]
    names = ("frage", "better", "worse")
    _, [row] = reading(path, conversations="preference", inputs=names, label=None)
    assert Preference.loads(row["input.preference"]).rejected == (NO,)


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"messages": [{"role": "wizard", "content": "x"}, YES]},
        "column messages has a message with the unknown role wizard",
    ),
    ({"messages": [{"content": "x"}, YES]}, "column messages has a message with no role"),
    ({"messages": [ASK, ASK, YES]}, "column messages has two user messages in a row"),
    ({"messages": [ASK, YES, YES]}, "column messages has two assistant messages in a row"),
    ({"messages": [YES, ASK, YES]}, "column messages begins with an assistant message"),
    ({"messages": [ASK, BE, YES]}, "column messages has a system message that is not the first"),
    (
        {"messages": [ASK, {"role": "assistant", "content": " "}]},
        "column messages has an assistant message without content",
    ),
    ({"messages": [BE, ASK]}, "column messages has no assistant message"),
    ({"messages": [ASK, YES, ASK]}, "column messages ends with a user message"),
    ({"messages": [ASK, RESULT, YES]}, "column messages has a tool's result without a call"),
    ({"messages": [ASK, CALL, {**RESULT, "tool_call_id": "c2"}, YES]}, "has a tool's result without a call"),
    ({"messages": [ASK, {**YES, "weight": 0}]}, "has no assistant message with a weight other than 0"),
    ({"messages": [ASK, {**YES, "content": "a\ufdd0"}]}, "has a code point that Unicode reserves for programs"),
    ({"messages": "Tea?"}, "column messages has text that is not a list of messages"),
    ({"prompt": "Tea?", "completion": ""}, "the conversation has an assistant message without content"),
    ({"prompt": "Tea?", "completion": {"cups": 2}}, "an object or a list that is no message in place of text"),
    ({"prompt": "Tea?", "completion": [{"role": "wizard", "content": "x"}]}, "the unknown role wizard"),
    ({"prompt": "", "completion": "Yes"}, "the conversation has a user message without content"),
]


@pytest.mark.parametrize(("row", "wanted"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_said_with_file_and_row(
    row: dict[str, Any], wanted: str, tmp_path: Path, make_context: Callable[..., Context], reading: Read
) -> None:
    good = {"messages": [ASK, YES]} if "messages" in row else {"prompt": "Tea?", "completion": "Yes"}
    path = write(tmp_path / "chat.jsonl", [good, row, good, row])
    params = ReadParams(uri=str(path), conversations="auto", label=None)
    with pytest.raises(DataError) as caught:
        read.fn(make_context("read"), params)
    assert caught.value.what.startswith("chat.jsonl: ")
    assert wanted in caught.value.what
    assert caught.value.what.endswith("in row 2, 4 (header not counted)")
    assert "read.nulls=drop" in caught.value.fix
    assert reading(path, conversations="auto", label=None, nulls="drop")[0].rows == 2


def test_each_message_names_the_rows_of_its_own_problem(tmp_path: Path, make_context: Callable[..., Context]) -> None:
    rows = [{"messages": [ASK, ASK, YES]}, {"messages": [BE, ASK]}, {"messages": [ASK, ASK, YES]}]
    path = write(tmp_path / "chat.jsonl", rows)
    with pytest.raises(DataError, match=r"two user messages in a row in row 1, 3 \(header"):
        read.fn(make_context("read"), ReadParams(uri=str(path), conversations="auto", label=None))


PAIRS_WRONG = [
    ({"prompt": "Tea?", "chosen": "Yes", "rejected": "Yes"}, "has equal chosen and rejected answers"),
    ({"prompt": "", "chosen": "Yes", "rejected": "No"}, "has no prompt"),
    (
        {"chosen": [ASK, YES], "rejected": [{**ASK, "content": "Milk?"}, NO]},
        "has chosen and rejected conversations without a common prompt",
    ),
    ({"prompt": "Tea?", "chosen": "Yes", "rejected": ""}, "has no rejected answer"),
]


@pytest.mark.parametrize(("row", "wanted"), PAIRS_WRONG)
def test_wrong_preferences(
    row: dict[str, Any], wanted: str, tmp_path: Path, make_context: Callable[..., Context]
) -> None:
    path = write(tmp_path / "pairs.jsonl", [row])
    with pytest.raises(DataError, match=rf"pairs\.jsonl: the preference {wanted} in row 1 "):
        read.fn(make_context("read"), ReadParams(uri=str(path), conversations="auto", label=None))


def test_tasks_write_the_same_bytes(
    tmp_path: Path, make_context: Callable[..., Context], ray_head: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        rows = [{"instruction": f"Tea {n}?", "input": name, "output": "Yes ☕" * (n % 3)} for n in range(40)]
        write(tmp_path / f"{name}.jsonl", rows)
    made = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(stream, "INLINE_BYTES", limit)
        ctx = make_context("read")
        params = ReadParams(uri=f"{tmp_path}/*.jsonl", conversations="auto", label=None, nulls="drop")
        found = read.fn(ctx, params)
        assert found.rows == 78, "answers without text are dropped"
        made.append({path.name: path.read_bytes() for path in sorted(ctx.out.glob("*.parquet"))})
    assert made[0] == made[1]


def test_files_of_no_form(tmp_path: Path, make_context: Callable[..., Context]) -> None:
    path = write(tmp_path / "rows.csv", [{"title": "a", "price": "1"}])
    with pytest.raises(
        DataError, match=r"rows\.csv has no columns of conversations; it has title, price; name the columns: -s read\."
    ):
        read.fn(make_context("read"), ReadParams(uri=str(path), conversations="auto", label=None))
    with pytest.raises(DataError, match=r"rows\.csv has no column messages; .* read\.inputs="):
        read.fn(make_context("read"), ReadParams(uri=str(path), conversations="messages", label=None))
