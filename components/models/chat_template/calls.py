"""Calls of tools in generated text, in the form in which a chat template writes them.

Templates have forms of their own: Qwen's and Hermes' write `<tool_call>{"name": ..., "arguments": ...}</tool_call>`,
Llama 3's a bare object with `parameters`, Mistral's `[TOOL_CALLS]` and a list. The form is read off a call that the
template renders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    lead: str = field(default="", compare=False)
    """The text before the JSON, with the spaces of the template and the bracket of a list."""
    example: Any = field(default=None, compare=False)
    """JSON of the call of NAME that was rendered."""

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
        head = rendered[:start]
        body = head.rstrip().removesuffix("[").rstrip()
        before = body.rpartition("\n")[2]
        lead = head[len(body) - len(before) :]
        after = rendered[end:].lstrip().removeprefix("]").lstrip().partition("\n")[0]
        return cls(before, after.strip(), lead if before else lead.lstrip(), found)

    def schema(self, functions: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON schema of a call of one of these functions.

        functions: their names, and the JSON schemas of their arguments; None for a function without arguments.
        """
        definitions = {f"f{n}": _arguments(each, f"f{n}") for n, each in enumerate(functions.values())}
        calls = [_like(self.example, name, f"f{n}") for n, name in enumerate(functions)]
        return {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), "$defs": definitions}

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


def _like(value: Any, name: str, definition: str) -> dict[str, Any]:
    """Return the schema of a value of the rendered call, with another function and its arguments."""
    if value == {ARGUMENT: 1}:
        return {"$ref": f"#/$defs/{definition}"}
    if isinstance(value, dict):
        properties = {key: _like(each, name, definition) for key, each in value.items()}
        closed = {"required": list(properties), "additionalProperties": False}
        return {"type": "object", "properties": properties, **closed}
    if isinstance(value, str) and ARGUMENT in value:
        return {"type": "string"}  # arguments as text
    return {"const": name if value == NAME else value}


def _arguments(schema: Any, definition: str) -> dict[str, Any]:
    """Return the schema of arguments as a definition of another: an object, whose references are within it."""
    if schema is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    moved = _moved(schema, f"#/$defs/{definition}")
    return moved if "type" in moved or "$ref" in moved else {"type": "object", **moved}


def _moved(value: Any, place: str) -> Any:
    """Return a schema whose references to itself are to `place`."""
    if isinstance(value, list):
        return [_moved(each, place) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _moved(each, place) for key, each in value.items()}
    reference = found.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        found["$ref"] = place + reference[1:]
    return found
