"""Calls of tools in generated text, in the form in which a chat template writes them.

Templates have forms of their own: Qwen's and Hermes' write `<tool_call>{"name": ..., "arguments": ...}</tool_call>`,
Llama 3's a bare object with `parameters`, Mistral's `[TOOL_CALLS]` and a list. The form is read off a call that the
template renders.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

NAME, ARGUMENT = "raypath_function", "raypath_argument"
"""Function and argument of the call that is rendered."""
_ARGUMENTS = ("arguments", "parameters")
"""Keys under which models write the arguments, whatever their template does."""


class ParsedCall(NamedTuple):
    """Call of a function. arguments: a JSON object as text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class CallForm:
    """Form of calls: the text before the JSON of a call, and after it."""

    opening: str
    closing: str

    @classmethod
    def of(cls, rendered: str) -> CallForm | None:
        """Read the form off an answer with one call of NAME; None if the call is no JSON object with its name."""
        at = rendered.find(f'"{NAME}"')
        start = rendered.rfind("{", 0, max(at, 0))
        if at < 0 or start < 0:
            return None
        try:
            found, end = json.JSONDecoder().raw_decode(rendered, start)
        except ValueError:
            return None
        if _call(found) is None:
            return None
        # Other lines are no part of a call: some templates write an empty thought first.
        before = rendered[:start].rstrip().removesuffix("[").rstrip().rpartition("\n")[2]
        after = rendered[end:].lstrip().removeprefix("]").lstrip().partition("\n")[0]
        return cls(before, after.strip())

    def begins(self, text: str) -> int:
        """Return where the calls in a text begin, or could begin: its length if nowhere."""
        if not self.opening:
            stripped = text.lstrip()
            return len(text) - len(stripped) if not stripped or stripped[0] in "{[" else len(text)
        at = text.find(self.opening)
        if at >= 0:
            return at
        longest = min(len(text), len(self.opening) - 1)
        held = next((size for size in range(longest, 0, -1) if text.endswith(self.opening[:size])), 0)
        return len(text) - held

    def parse(self, text: str) -> tuple[str, list[ParsedCall]]:
        """Return the text before the calls and the calls; the whole text and none if it has no complete call."""
        start = self.begins(text)
        rest, calls = text[start:], list[ParsedCall]()
        while rest.strip():
            rest = rest.lstrip().removeprefix(self.opening).lstrip() if self.opening else rest.lstrip(" \n\t;,")
            try:
                value, end = json.JSONDecoder().raw_decode(rest)
            except (ValueError, RecursionError):
                break
            found = [_call(each) for each in (value if isinstance(value, list) else [value])]
            if not found or None in found:
                break
            calls += [each for each in found if each is not None]
            rest = rest[end:].lstrip()
            rest = rest.removeprefix(self.closing) if self.closing else rest
        return (text[:start].rstrip(), calls) if calls else (text, [])


def _call(value: Any) -> ParsedCall | None:
    """Return the call that an object describes, None for another value."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return None
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    if isinstance(arguments, str):
        return ParsedCall(name, arguments)
    return ParsedCall(name, json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None
