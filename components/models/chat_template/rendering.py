"""Jinja environment of chat templates, in which the same messages always give the same text.

Templates are untrusted files: they run in jinja2's sandbox and see plain JSON values only. As in transformers,
`{% generation %}` marks the assistant's tokens, and blocks are trimmed. Unlike there, `strftime_now` has a fixed
date: Llama's templates would otherwise put the present one into every system message.
"""

from __future__ import annotations

import datetime as dt
import json
from functools import lru_cache
from typing import Any, NamedTuple

from raypath.components.core.errors import DataError

DATE = dt.datetime(2024, 7, 26)
"""Date that templates read, the one that Llama's take where there is none."""
_BEGIN, _END = "\ufdd0", "\ufdd1"
"""Marks around generated text: code points that Unicode reserves for the inside of a program."""
MARKS = _BEGIN + _END


class Rendered(NamedTuple):
    """Text of a conversation. generated: (start, end) of the assistant's text, if the template marks it."""

    text: str
    generated: tuple[tuple[int, int], ...] = ()


@lru_cache(maxsize=16)
def compile_template(source: str) -> Any:
    """Compile a template. Raises DataError for one that is not valid."""
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as error:
        what = f"the chat template is not valid in line {error.lineno} ({error.message})"
        raise DataError(what, fix="correct chat_template.jinja in the base's folder") from None


def render(source: str, **values: Any) -> Rendered:
    """Render a template. Raises TemplateRejects if it raises an error."""
    from jinja2 import TemplateError

    try:
        marked = compile_template(source).render(**values)
    except (
        TemplateError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise TemplateRejects((str(error).splitlines() or [type(error).__name__])[0][:200]) from None
    return _unmarked(marked)


class TemplateRejects(Exception):
    """A template raised an error for messages, with its text."""


def _unmarked(marked: str) -> Rendered:
    """Remove the marks of generated text, and return where they were; within each other the outer ones count."""
    if _BEGIN not in marked:
        return Rendered(marked)
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    position = start = depth = 0
    for piece in marked.replace(_END, _BEGIN + _END).split(_BEGIN):
        if parts:
            closes = piece.startswith(_END)
            start = position if not closes and depth == 0 else start
            depth += -1 if closes else 1
            if closes and depth == 0:
                spans.append((start, position))
        piece = piece.removeprefix(_END)
        parts.append(piece)
        position += len(piece)
    return Rendered("".join(parts), tuple(spans))


@lru_cache(maxsize=1)
def _environment() -> Any:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block `{% generation %}`."""

        tags = {"generation"}  # noqa: RUF012 - an instance variable in the base class

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            return f"{_BEGIN}{caller()}{_END}"

    class Namespace(jinja2.utils.Namespace):
        """A namespace that takes no private names."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"{name!r} is private")
            super().__setitem__(name, value)

    def refuse(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any) -> str:
        # jinja2's own filter escapes HTML.
        sort_keys = bool(more.get("sort_keys"))
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = DATE.strftime
    made.globals["namespace"] = Namespace
    return made
