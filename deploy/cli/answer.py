"""`raypath predict` with a language model: a response to each conversation of a file of JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.files import disk_full_as_store_error, new_file
from raypath.components.core.params import Fraction, NonNegative, Params, Positive

if TYPE_CHECKING:
    from raypath.components.core.conversations import Message, Tool
    from raypath.components.inference.generation.local_chat import LocalChat

GROUP = 256
"""Conversations that are passed to the model together, which bounds the memory for a long file."""
ANSWER = "answer"
"""Key of the response in a line of the output."""


class AnswerParams(Params):
    """Sampling settings of `raypath predict`."""

    max_new_tokens: Positive = 256
    """Maximum length of a response in tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Temperature of sampling; 0 is greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the fewest tokens whose probabilities reach this sum."""
    top_k: NonNegative = 0
    """Draw from this many most probable tokens; 0 from all."""
    min_p: Fraction = 0.0
    """Draw from tokens with at least this share of the probability of the most probable one."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Repetition penalty: above 1 it makes repeated tokens less probable; 1 disables it."""
    seed: NonNegative = 0
    """Seed of the random numbers."""


@dataclass(frozen=True)
class _Line:
    """A line of the input, with the messages to answer."""

    record: dict[str, Any]
    prompt: Sequence[Message]
    tools: Sequence[Tool]


def answer_file(folder: Path, data: str, target: Path, settings: Mapping[str, Any]) -> int:
    """Generate a response to each conversation of a file, in order; returns their number.

    A line has `messages` in OpenAI's form, with `tools` if there are any, or a text `prompt`. An assistant
    message at the end is not part of the prompt. The output has the line with the key `answer`.

    Raises DataError for a line without a conversation, ParamsError for an unknown setting or a file that is not JSON
    lines, StoreError if the disk is full.
    """
    from raypath.components.inference.generation.local_chat import LocalChat

    chosen = AnswerParams().override(settings)
    source = Path(data).expanduser()
    if target.suffix != ".jsonl":
        raise ParamsError(f"-o {target}: responses are written as JSON lines", fix="end it in .jsonl")
    if source.suffix not in (".jsonl", ".ndjson") or not source.is_file():
        raise ParamsError(f"{data} is not a JSON lines file", fix='give one with lines such as {"messages": [...]}')
    model, done = LocalChat(folder), 0
    with disk_full_as_store_error(f"no space left for {target}"), new_file(target) as file:
        for lines in _groups(_lines(source)):
            for line, answer in zip(lines, _answers(model, lines, chosen), strict=True):
                file.write((json.dumps({**line.record, ANSWER: answer}, ensure_ascii=False) + os.linesep).encode())
            done += len(lines)
        if not done:
            raise DataError(f"{data} has no lines", fix="give a file with conversations")
    return done


def _answers(model: LocalChat, lines: Sequence[_Line], chosen: AnswerParams) -> list[str]:
    """Generate the responses to some lines; those with the same tools go to the model together."""
    found = [""] * len(lines)
    groups: dict[str, list[int]] = {}
    for n, line in enumerate(lines):
        groups.setdefault(json.dumps(line.tools), []).append(n)
    for rows in groups.values():
        prompts = [lines[n].prompt for n in rows]
        answers = model.generate(prompts, tools=lines[rows[0]].tools, **chosen.model_dump())
        for n, answer in zip(rows, answers, strict=True):
            found[n] = answer.text
    return found


def _lines(source: Path) -> Iterator[_Line]:
    """Read the conversations. Raises DataError for a line without one."""
    with open(source, "rb") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = _line(text)
            except (ValueError, RecursionError) as error:
                unread = isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
                problem = "is not JSON in UTF-8" if unread else str(error)
                fix = 'give messages, such as [{"role": "user", "content": "..."}], or a prompt'
                raise DataError(f"line {number} of {source} {problem}", fix=fix) from None
            yield line


def _line(text: bytes) -> _Line:
    """Read a line. Raises ValueError with what is wrong."""
    from raypath.components.data.columns.conversations.notations import messages_of, tools_of
    from raypath.components.data.columns.values import is_valid_unicode

    record = json.loads(text)
    if not is_valid_unicode(json.dumps(record, ensure_ascii=False)):
        raise ValueError("has a lone surrogate (\\ud800-\\udfff)")
    if not isinstance(record, dict):
        raise ValueError("has no conversation")
    tools = tools_of(record.get("tools"))
    if record.get("messages") is None:
        if not isinstance(record.get("prompt"), str):
            raise ValueError("has no conversation")
        return _Line(record, [{"role": "user", "content": record["prompt"]}], tools)
    messages = messages_of(record["messages"])
    prompt = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
    if not prompt:
        raise ValueError("has no conversation")
    return _Line(record, prompt, tools)


def _groups(lines: Iterator[_Line]) -> Iterator[list[_Line]]:
    group: list[_Line] = []
    for line in lines:
        group.append(line)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group
