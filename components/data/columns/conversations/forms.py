"""Forms of conversations in files: which columns have the parts of a row, and how they become one value.

`messages` has a list of messages in one column, in OpenAI's notation or ShareGPT's; `alpaca` has an instruction, an
input and an output; `prompt` a prompt and a completion; `text` one text; `preference` a chosen and a rejected answer;
`source_target` two texts, the second of which is written for the first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raypath.components.core.columns import INPUT_PREFIX, Column
from raypath.components.core.errors import DataError
from raypath.components.data.wording import plural

FormName = Literal["messages", "alpaca", "prompt", "text", "preference"]
SOURCE_TARGET = "source_target"
"""Form of rows for encoder-decoders, which no columns are recognised as: it is a kind of labels."""
PART = "part."
"""Prefix of the names of parts while a file is read."""


@dataclass(frozen=True)
class Form:
    """Form of rows. required, optional: usual names of the columns of each part, by the part's name.

    described: the form as messages name it.
    """

    kind: str
    described: str
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]]


_TOOLS = ("tools", "functions")
_SYSTEM = ("system", "system_prompt")
_PROMPTS = ("prompt", "question", "query", "instruction", "input")
FORMS: dict[str, Form] = {
    "preference": Form(
        "preference",
        "pairs of a chosen and a rejected answer",
        {"chosen": ("chosen", "preferred_output"), "rejected": ("rejected", "non_preferred_output")},
        {"prompt": (*_PROMPTS, "messages"), "system": _SYSTEM, "tools": _TOOLS},
    ),
    "messages": Form(
        "messages",
        "lists of messages",
        {"messages": ("messages", "conversations", "conversation", "dialogue", "chat")},
        {"system": _SYSTEM, "tools": _TOOLS},
    ),
    "alpaca": Form(
        "messages",
        "instructions with outputs",
        {"instruction": ("instruction",), "output": ("output", "response", "answer", "completion")},
        {"input": ("input", "context"), "system": _SYSTEM},
    ),
    "prompt": Form(
        "messages",
        "prompts with completions",
        {
            "prompt": ("prompt", "question", "query", "input", "source"),
            "completion": ("completion", "response", "answer", "output", "target"),
        },
        {"system": _SYSTEM, "tools": _TOOLS},
    ),
    "text": Form("messages", "texts without a prompt", {"text": ("text", "content")}, {}),
}
"""Forms in the order in which they are looked for."""
_PAIR = Form("messages", "sources with targets", {"source": ("source",), "target": ("target",)}, {})
_ALL = {**FORMS, SOURCE_TARGET: _PAIR}


@dataclass(frozen=True)
class Composition:
    """One input column that is composed of several columns of a file.

    parts: the user's column of each part, the required ones first.
    """

    form: str
    parts: tuple[tuple[str, str], ...]

    @property
    def column(self) -> Column:
        """Composed column."""
        kind = _ALL[self.form].kind
        name = dict(self.parts)["source"] if self.form == SOURCE_TARGET else kind
        return Column(name=name, kind=kind, stored=INPUT_PREFIX + kind)

    @property
    def described(self) -> str:
        """User's name of the value, for messages: that of its column, or of both texts."""
        return " or ".join(name for _, name in self.parts) if self.form == SOURCE_TARGET else self.column.name

    @property
    def optional(self) -> frozenset[str]:
        """User's columns that a file may lack."""
        return frozenset(name for part, name in self.parts if part in _ALL[self.form].optional)

    def selected(self) -> dict[str, str]:
        """Map the name of each part while it is read to the user's column."""
        return {PART + part: name for part, name in self.parts}

    def values(self, raw: Mapping[str, Sequence[Any]]) -> Iterator[Any]:
        """Yield the value of each row for its kind to parse; None where all parts are missing.

        raw: values by the names of `selected`, as the format of the file has them.
        """
        names = [part for part, _ in self.parts]
        for cells in zip(*(raw[PART + name] for name in names), strict=True):
            row = {name: cell for name, cell in zip(names, cells, strict=True) if not _is_missing(cell)}
            yield _COMPOSE[self.form](row) if row else None


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and not cell.strip())


def _alpaca(row: Mapping[str, Any]) -> Any:
    given = [row[name] for name in ("instruction", "input") if name in row]
    nested = [each for each in given if isinstance(each, Mapping | list)]
    asked = nested[0] if nested else "\n\n".join(map(str, given))
    return _exchange({**row, "prompt": asked, "completion": row.get("output")})


def _exchange(row: Mapping[str, Any]) -> Any:
    """Return the parts that a conversation consists of; its kind joins them, and describes what is wrong."""
    return {name: row.get(name) for name in ("prompt", "completion", "system", "tools")}


def _source_target(row: Mapping[str, Any]) -> Any:
    """Return a source and its target as messages; None where one is missing."""
    if len(row) < 2:
        return None
    return [{"role": "user", "content": row["source"]}, {"role": "assistant", "content": row["target"]}]


_COMPOSE: dict[str, Any] = {
    "messages": lambda row: row,
    "alpaca": _alpaca,
    "prompt": _exchange,
    "text": lambda row: [{"role": "assistant", "content": row["text"]}],
    "preference": lambda row: row,
    SOURCE_TARGET: _source_target,
}


def find_form(names: Collection[str]) -> str:
    """Return the form that columns of these names have; "" if there is none."""
    return next((form for form in FORMS if all(_first(names, usual) for usual in FORMS[form].required.values())), "")


def compose(form: str, names: Collection[str], given: Sequence[str] = (), text: str = "") -> Composition:
    """Choose the column of each part. given: the user's names of the required parts, then of optional ones in order.

    text: name of the column for the form `text`. The columns of required parts need not exist. Raises DataError if
    fewer are given than the form requires.
    """
    found = _ALL[form]
    order = [*found.required, *found.optional]
    if form == "preference" and given:
        order = ["prompt", "chosen", "rejected", "system", "tools"][1 if len(given) == 2 else 0 :]
    if form == "alpaca":
        order = ["instruction", "input", "output", "system"] if len(given) > 2 else order
    least = 2 if form == "preference" else len(found.required)
    if given and len(given) < least:
        what = f"read.inputs has {plural(len(given), 'column')}; conversations={form} needs {least}"
        raise DataError(what, fix=f"set -s read.inputs={','.join(map(str.upper, order[:least]))}")
    if given:
        return Composition(form, _sorted(form, dict(zip(order, given, strict=False))))
    if form == "text" and text:
        return Composition(form, (("text", text),))
    parts = {part: _first(names, usual) or usual[0] for part, usual in found.required.items()}
    for part, usual in found.optional.items():
        name = _first([name for name in names if name not in parts.values()], usual)
        parts |= {part: name} if name else {}
    return Composition(form, _sorted(form, parts))


def _sorted(form: str, parts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((part, parts[part]) for part in (*_ALL[form].required, *_ALL[form].optional) if part in parts)


def _first(names: Collection[str], usual: Sequence[str]) -> str:
    return next((name for name in usual if name in names), "")
