"""Recognise conversations among the columns of a file: their form, and the part that each column has.

The names of the columns say which form it may be, and the values whether it is: a column of classes is no response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from raypath.components.data.columns.conversations.forms import FORMS, Composition, compose, find_form
from raypath.components.data.columns.conversations.notations import messages_of
from raypath.components.inspection.columns.guess import Guess, Profile

_TEXTS = ("text", "set", "id")
"""Kinds of columns whose values may be responses; `set` is the kind of lists, and so of messages."""
_CERTAIN = (("prompt", "completion"), ("instruction", "output"))
"""Names of two columns that are a prompt and its response, whatever their values."""


def recognise(guesses: Sequence[Guess], profiles: Mapping[str, Profile]) -> str:
    """Return the form of conversations that a file has; "" for other data, and for texts without a prompt."""
    kinds = {guess.name: guess.kind for guess in guesses}
    form = find_form(tuple(kinds))
    if form in ("", "text"):
        return ""
    parts = dict(compose(form, tuple(kinds)).parts)
    if form == "messages":
        return form if _has_messages(profiles[parts["messages"]]) else ""
    if form == "preference":
        return form if all(kinds[parts[name]] in (*_TEXTS, "category") for name in ("chosen", "rejected")) else ""
    prompt, answer = (parts[name] for name in FORMS[form].required)
    labelled = any(guess.role == "label" and guess.name not in parts.values() for guess in guesses)
    return form if (prompt, answer) in _CERTAIN or (kinds[answer] in _TEXTS and not labelled) else ""


def good_label(guesses: Sequence[Guess], composed: Composition) -> str:
    """Return the column that marks responses as good or bad, named as a label; "" without one."""
    parts = {name for _, name in composed.parts}
    marks = [guess.name for guess in guesses if guess.kind == "boolean" and guess.name not in parts]
    return next((name for name in marks if name == "label"), "")


def with_parts(guesses: Sequence[Guess], profiles: Mapping[str, Profile], composed: Composition) -> list[Guess]:
    """Return the guesses with the part of each column of conversations as its role, and no role but split else."""
    parts = {name: part for part, name in composed.parts}
    return [_with_part(guess, profiles[guess.name], parts.get(guess.name, "")) for guess in guesses]


def _with_part(guess: Guess, profile: Profile, part: str) -> Guess:
    why = guess.why.partition("; ")[0] if guess.role and guess.role != "split" else guess.why
    if part and _has_messages(profile):
        return Guess(guess.name, "messages", "values are lists of messages", part)
    return replace(guess, why=why, role=part or (guess.role if guess.role == "split" else ""))


def _has_messages(profile: Profile) -> bool:
    """Return True if the first value is a conversation, in any notation."""
    try:
        return bool(messages_of(profile.first))
    except ValueError:
        return False
