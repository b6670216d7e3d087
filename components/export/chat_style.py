"""Literal texts of a chat template: what it writes around the messages of each role.

A Jinja template is rendered for made-up conversations, whose contents are found again in the result; the texts between
them are the template's own. They are used only where they give what the template renders for longer conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raypath.components.core.conversations import Message

Render = Callable[[list[Message], bool], str]
"""Renders messages; True adds the beginning of the next answer."""
S, U, A, V, B, W = "sYsTem0text", "uSeR1text", "aNsweR2text", "uSeR3text", "aNsweR4text", "uSeR5text"
SHORT, LONG = [("user", U)], [("user", U), ("assistant", A), ("user", V), ("assistant", B), ("user", W)]


@dataclass(frozen=True)
class ChatStyle:
    """Texts before and after the messages of each role."""

    begin: str
    """Before everything: the beginning-of-text token, or nothing. One that begins every turn is a part of these."""
    default_system: str
    """In the place of a system message where there is none."""
    system: tuple[str, str] | None
    """None: the system message is not a turn of its own."""
    system_inside: str | None
    """Text between a system message and the first question, in whose turn it is; None: it is not, or is rejected."""
    user: tuple[str, str]
    answer: tuple[str, str]
    prompt: str
    """Before the answer that the model is to write."""

    def render(self, messages: Sequence[Message], prompt: bool) -> str:
        """Render messages, of which a system message is the first, as the template does."""
        first, *rest = messages
        text, inside = self.begin, ""
        if first["role"] != "system":
            text, rest = text + self.default_system, [first, *rest]
        elif self.system is None:
            inside = first["content"] + (self.system_inside or "")
        else:
            text += first["content"].join(self.system)
        for message in rest:
            text += (inside + message["content"]).join(self.answer if message["role"] == "assistant" else self.user)
            inside = ""
        return text + (self.prompt if prompt else "")


def style_of(render: Render, bos: str, eos: str) -> ChatStyle | None:
    """Return the texts of a template; None for one that writes more than texts around contents, or that fails.

    bos, eos: the tokenizer's tokens for the beginning and the end of a text, "" for none.
    """
    # Some templates end a conversation without a prompt with the end token, which is no part of a turn.
    found = (_tried(render, bos, ending) for ending in dict.fromkeys(("", eos)))
    return next((style for style in found if style is not None), None)


def _tried(render: Render, bos: str, ending: str) -> ChatStyle | None:
    try:
        found = _read(render, bos, ending)
        return found if _is_right(render, found) else None
    except Exception:  # noqa: BLE001 - a template is a program, and raises errors of many types
        return None


def _is_right(render: Render, found: ChatStyle) -> bool:
    talks = [SHORT, LONG[:3], LONG]
    if found.system is not None or found.system_inside is not None:
        talks += [[("system", S), *talk] for talk in talks]
    return all(render(_messages(talk), True) == found.render(_messages(talk), True) for talk in talks)


def _read(render: Render, bos: str, ending: str) -> ChatStyle:
    """Read the texts off four short conversations. Raises ValueError where a content is not there once."""
    first, user_after = _around(render(_messages(SHORT), False).removesuffix(ending), U)
    prompt = _around(render(_messages(SHORT), True), U)[-1].removeprefix(user_after)
    answer_after = _around(render(_messages(LONG[:2]), False).removesuffix(ending), U, A)[-1]
    _, answer_before, user_before, _ = _around(render(_messages(LONG[:3]), True), U, A, V)
    user = user_before.removeprefix(answer_after), user_after
    head = first.removesuffix(user[0])
    begin = bos if head.startswith(bos) and not user[0].startswith(bos) else ""
    system, inside = _system(render, begin, user[0])
    answer = answer_before.removeprefix(user_after), answer_after
    return ChatStyle(begin, head.removeprefix(begin), system, inside, user, answer, prompt)


def _system(render: Render, begin: str, user: str) -> tuple[tuple[str, str] | None, str | None]:
    """Return the texts around a system message, and the text after one that is in the turn of the first question."""
    try:
        before, between, _ = _around(render(_messages([("system", S), *SHORT]), True), S, U)
    except Exception:  # noqa: BLE001 - templates raise an error of their own for a system message
        return None, None
    before = before.removeprefix(begin)
    if between.endswith(user):
        return (before, between.removesuffix(user)), None
    return None, between if before == user else None


def _around(text: str, *contents: str) -> list[str]:
    """Return the texts before, between and after contents, which are in this order. Raises ValueError."""
    places = [text.index(content) for content in contents]
    if places != sorted(places) or any(text.count(content) != 1 for content in contents):
        raise ValueError("the template repeats or moves contents")
    ends = [0, *(place + len(content) for place, content in zip(places, contents, strict=True))]
    return [text[end:start] for end, start in zip(ends, [*places, len(text)], strict=True)]


def _messages(turns: Sequence[tuple[str, str]]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in turns]
