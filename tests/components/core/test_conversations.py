"""Conversations and preferences: their JSON, and what makes a conversation unfit for training."""

from __future__ import annotations

import json

import pytest

from raypath.components.core.conversations import Conversation, Message, Preference, ToolCall, is_text, problem_of

ASK: Message = {"role": "user", "content": "Tea?"}
YES: Message = {"role": "assistant", "content": "Yes ☕"}
AFTER = "has a user message after a tool's result; wanted one of the assistant"
BE: Message = {"role": "system", "content": "Be short"}


def call(*ids: str) -> Message:
    """Calls with these ids; "" for one without."""
    calls: list[ToolCall] = [{"type": "function", "function": {"name": "brew", "arguments": "{}"}} for _ in ids]
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{**each, "id": name} if name else each for each, name in zip(calls, ids, strict=True)],
    }


def result(name: str = "") -> Message:
    return {"role": "tool", "content": "", "tool_call_id": name} if name else {"role": "tool", "content": ""}


def test_json_is_compact_and_complete() -> None:
    found = Conversation((BE, ASK, YES))
    assert found.dumps() == json.dumps({"messages": [BE, ASK, YES]}, ensure_ascii=False, separators=(",", ":"))
    assert (found.prompt.messages, found.answer) == ((BE, ASK), YES)
    tools = ({"type": "function", "function": {"name": "brew"}},)
    with_tools = Conversation((ASK, call("a"), result("a"), YES), tools)
    assert Conversation.loads(with_tools.dumps()) == with_tools
    pair = Preference((ASK,), (YES,), ({"role": "assistant", "content": "No"},), tools)
    assert Preference.loads(pair.dumps()) == pair
    assert list(json.loads(pair.dumps())) == ["messages", "chosen", "rejected", "tools"]
    assert pair.with_chosen == Conversation((ASK, YES), tools)
    assert pair.with_rejected.answer["content"] == "No"


@pytest.mark.parametrize(
    "messages",
    [
        [ASK, YES],
        [BE, ASK, YES, ASK, YES],
        [BE, YES],
        [YES],
        [ASK, call("a", "b"), result("b"), result("a"), YES],
        [ASK, call(""), result(), YES],
        [ASK, call(""), result("x"), YES],
        [ASK, call("a"), result(), YES],
        [ASK, call("a")],
        [ASK, call("a"), result("a"), call("b"), result("b"), YES],
        [ASK, {**YES, "weight": 0}, ASK, YES],
    ],
)
def test_conversations_that_can_be_learned(messages: list[Message]) -> None:
    assert problem_of(messages) == ""
    assert is_text(messages) == (messages == [YES])


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ([], "has no assistant message"),
        ([BE, ASK], "has no assistant message"),
        ([ASK, YES, ASK], "ends with a user message; wanted an answer of the assistant"),
        ([ASK, call("a"), result("a")], "ends with a tool message; wanted an answer of the assistant"),
        ([YES, ASK, YES], "begins with an assistant message"),
        ([call("a"), result("a"), YES], "begins with an assistant message"),
        ([ASK, BE, YES], "has a system message that is not the first"),
        ([BE, BE, ASK, YES], "has a system message that is not the first"),
        ([ASK, ASK, YES], "has two user messages in a row"),
        ([ASK, YES, YES], "has two assistant messages in a row"),
        (
            [ASK, call("a"), result("a"), ASK, YES],
            "has a user message after a tool's result; wanted one of the assistant",
        ),
        ([{**ASK, "content": " \n"}, YES], "has a user message without content"),
        ([ASK, {**YES, "content": ""}], "has an assistant message without content"),
        ([ASK, result("a"), YES], "has a tool's result without a call of the assistant"),
        ([ASK, call("a"), result("b"), YES], "has a tool's result without a call of the assistant"),
        ([ASK, call("a"), result("a"), result("a"), YES], "has a tool's result without a call of the assistant"),
        ([ASK, call(""), result(), result(), YES], "has a tool's result without a call of the assistant"),
        ([ASK, {**YES, "weight": 0}], "has no assistant message with a weight other than 0"),
    ],
)
def test_conversations_that_cannot(messages: list[Message], wanted: str) -> None:
    assert problem_of(messages) == wanted
