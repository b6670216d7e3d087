"""Spans of the assistant's messages in a rendered conversation, and their end token.

Some templates mark the assistant's text by `{% generation %}`. Others are rendered again with
other messages, and the texts are compared, since templates trim messages, move them, and treat the last one otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.models.chat_template.rendering import Rendered

ANSWER = "\ufdd4"
"""Content, or name of a function, in place of a message's own, to find where the template puts it."""
Messages = list[dict[str, Any]]
Render = Callable[[Messages, Sequence[Any], bool], Rendered]


class AnswerFinder:
    """Find the answers of a template.

    content: ANSWER as the template takes the content of a message. control: finds control tokens of the template. eos:
    token that ends a text.
    """

    def __init__(self, render: Render, content: Any, control: re.Pattern[str], eos: str) -> None:
        self._render, self._content, self._control, self._eos = render, content, control, eos

    @cached_property
    def end(self) -> str:
        """Tokens that the template writes after an answer; "" if there are none."""
        try:
            behind = self._behind(1)
        except DataError:
            return self._eos
        found = self._control.match(behind)
        if found is None:
            return ""
        follows = found[0] != self._eos and self._eos and behind.startswith(self._eos, found.end())
        return found[0] + self._eos if follows else found[0]

    @cached_property
    def _is_steady(self) -> bool:
        """True if all answers end alike; gpt-oss ends the last one in another way."""
        try:
            return bool(self.end) and self._behind(2).startswith(self.end)
        except DataError:
            return False

    def _behind(self, turns: int) -> str:
        """Return the text behind the first answer of a made-up conversation."""
        turn = [{"role": "user", "content": self._as_content("a")}, self._answer()]
        return self._render(turn * turns, (), False).text.partition(ANSWER)[2].lstrip()

    def _as_content(self, text: str) -> Any:
        return text if isinstance(self._content, str) else [{"type": "text", "text": text}]

    def _answer(self) -> dict[str, Any]:
        return {"role": "assistant", "content": self._content}

    def last(self, rendered: Rendered, messages: Messages, tools: Sequence[Any], prompt: str) -> list[tuple[int, int]]:
        """Return (start, end) of the parts of the last message, the assistant's; the first start ends its prompt.

        prompt: rendered messages before it.
        """
        text, number = rendered.text, len(messages) - 1
        start = len(prompt) if text.startswith(prompt) else self._start(text, messages, number, tools)
        found = [(max(begin, start), self._with_end(text, begin, end)) for begin, end in rendered.generated]
        found = [(begin, end) for begin, end in found if end > begin]
        return [(start, start), *(found or [(start, self._end_of(text, start, messages, number, tools, False))])]

    def in_prompt(self, rendered: Rendered, messages: Messages, tools: Sequence[Any]) -> list[tuple[int, int, int]]:
        """Return (start, end, number of the message) of what the assistant wrote in a prompt."""
        numbers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        text = rendered.text
        if rendered.generated and numbers:
            known = numbers if len(numbers) == len(rendered.generated) else [numbers[-1]] * len(rendered.generated)
            return [(s, self._with_end(text, s, e), n) for (s, e), n in zip(rendered.generated, known, strict=True)]
        found: list[tuple[int, int, int]] = []
        for n in numbers:
            start = max(self._start(text, messages, n, tools), found[-1][1] if found else 0)
            end = self._end_of(text, start, messages, n, tools, True)
            found += [(start, end, n)] if end > start else []
        return found

    def _start(self, text: str, messages: Messages, number: int, tools: Sequence[Any]) -> int:
        """Return where the answer `number` begins: behind its prompt, or where another answer would make a difference.

        Templates such as Mistral's move the system message to the last turn, so that the prompt of an earlier answer
        is not how the text begins.
        """
        prompt = self._render(messages[:number], tools, True).text
        if text.startswith(prompt):
            return len(prompt)
        later = next((n for n in range(number, len(messages)) if messages[n]["role"] == "user"), len(messages))
        other = self._render([*messages[:number], self._answer(), *messages[later:]], tools, False).text
        return _common(text, other)

    def _end_of(
        self, text: str, start: int, messages: Messages, number: int, tools: Sequence[Any], is_prompt: bool
    ) -> int:
        """Return where the answer `number` ends, its end token included."""
        found = re.compile(_unmarked(self.end)).search(text, start) if self.end else None
        trusted = number + 1 == len(messages) or (self._is_steady and "tool_calls" not in messages[number])
        if found and (trusted or found.end() <= self._limit(text, messages, number, tools, is_prompt)):
            return found.end()
        if number + 1 == len(messages) and not is_prompt:
            return len(text.rstrip())
        return self._divergence(text, start, self._render(messages[: number + 1], tools, False).text.rstrip())

    def _limit(self, text: str, messages: Messages, number: int, tools: Sequence[Any], is_prompt: bool) -> int:
        """Return where the content of the message after `number` begins."""
        if number + 1 == len(messages):
            return len(text)
        other = {**messages[number + 1], "content": self._content}
        return _common(
            text, self._render([*messages[: number + 1], other, *messages[number + 2 :]], tools, is_prompt).text
        )

    def _divergence(self, text: str, start: int, ended: str) -> int:
        """Return the end of an answer by a rendering that ends with it: where both differ, with the token there."""
        if text.startswith(ended):
            return max(len(ended), start)
        end = _common(text, ended)
        inside = next((each for each in self._control.finditer(text, start) if each.end() > end), None)
        if inside is None or inside.start() > end:
            return max(end, start)
        return max(inside.end(), start)

    def _with_end(self, text: str, start: int, end: int) -> int:
        """Return the end of generated text: with the end token that follows it, without white space behind one."""
        if not self.end:
            return end
        if text.startswith(self.end, end):
            return end + len(self.end)
        stripped = text[start:end].rstrip()
        return start + len(stripped) if stripped.endswith(self.end) else end


def _unmarked(token: str) -> str:
    """Return a pattern of a token that the template has written; names in messages begin with a mark."""
    return f"(?<!\ufdd2){re.escape(token)}"


def _common(one: str, other: str) -> int:
    """Count the characters that both texts begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (first, second) in pairs if first != second), min(len(one), len(other)))
