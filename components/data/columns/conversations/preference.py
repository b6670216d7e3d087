"""Preference: a prompt with a chosen and a rejected answer, stored as compact JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.conversations import Message, Preference, problem_of
from raypath.components.data.columns.conversations.messages import to_json, transcript, with_system
from raypath.components.data.columns.conversations.notations import messages_of, parsed, prompt_of, tools_of
from raypath.components.data.columns.kind import ColumnKind


class PreferencePair(ColumnKind):
    """Two answers to one prompt, of which the first is better."""

    name = "preference"
    type = pa.string()
    wanted = "an object with prompt, chosen and rejected"
    request: ClassVar[Any] = dict[str, Any]
    example: ClassVar[Any] = {"prompt": "Tea?", "chosen": "Yes, please.", "rejected": "No."}

    def parse(self, value: Any) -> str | None:
        """Accept an object with prompt (or messages), chosen and rejected, each text or messages, and its JSON."""
        try:
            return to_json(preference_of(value))
        except ValueError:
            return None

    def problem(self, value: Any) -> str:
        """Describe what is wrong with the prompt or the answers."""
        try:
            to_json(preference_of(value))
        except ValueError as error:
            return str(error)
        return super().problem(value)

    def render(self, value: Any) -> str:
        """Return the prompt and both answers as lines."""
        found = Preference.loads(value)
        chosen, rejected = transcript(found.chosen), transcript(found.rejected)
        return f"{transcript(found.messages)}\nchosen: {chosen}\nrejected: {rejected}"

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add the maximum length in characters."""
        longest = pc.max(pc.utf8_length(column)).as_py() or 0
        return {**super().describe(column), "max_characters": float(longest)}


def preference_of(value: Any) -> Preference:
    """Convert and check a preference of any notation. Raises ValueError with what is wrong.

    Answers that are whole conversations have the messages in common as their prompt; a separate prompt is then ignored.
    """
    value = parsed(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"is not {PreferencePair.wanted}")
    answers = {name: _answer(value.get(name), name) for name in ("chosen", "rejected")}
    given = parsed(value.get("messages") or value.get("prompt"))
    if isinstance(given, Mapping) and "messages" in given:
        value = {"tools": given.get("tools"), **value}
        given = given["messages"]
    prompt = prompt_of(given) if given else []
    chosen, rejected = answers["chosen"], answers["rejected"]
    if chosen[0]["role"] != "assistant":
        common = _common(chosen, rejected)
        prompt, chosen, rejected = chosen[:common], chosen[common:], rejected[common:]
        if not prompt:
            raise ValueError("has chosen and rejected conversations without a common prompt")
    prompt = with_system(prompt, value.get("system"))
    if not prompt:
        raise ValueError("has no prompt")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or answer[0]["role"] != "assistant":
            equal = chosen == rejected
            raise ValueError(
                "has equal chosen and rejected answers"
                if equal
                else "has two conversations that differ before an answer"
            )
        if problem := problem_of([*prompt, *answer]):
            raise ValueError(f"with the {name} answer {problem}")
    if chosen == rejected:
        raise ValueError("has equal chosen and rejected answers")
    return Preference(tuple(prompt), tuple(chosen), tuple(rejected), tools_of(value.get("tools")))


def _answer(value: Any, name: str) -> list[Message]:
    found = messages_of(value, "assistant") if value is not None else []
    if not found:
        raise ValueError(f"has no {name} answer")
    return with_system(found, "") or found


def _common(first: Sequence[Message], second: Sequence[Message]) -> int:
    """Count the messages that both conversations begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(first), len(second)))
