"""`raypath predict` with a language model: an answer for each conversation of a file of JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from raypath.components.core.errors import DataError, ParamsError, StoreError
from raypath.components.core.files import is_disk_full, new_file
from raypath.components.core.params import Fraction, NonNegative, Params, Positive

if TYPE_CHECKING:
    from raypath.components.inference.generation.local_chat import LocalChat

GROUP = 256
"""Conversations that are answered together, which bounds the memory for a long file."""
ANSWER = "answer"
"""Key of the answer in a line of the output."""


class AnswerParams(Params):
    """Settings of the answers."""

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


def answer_file(folder: Path, data: str, target: Path, settings: Mapping[str, Any]) -> int:
    """Answer every conversation of a file, in order; returns their number.

    A line has `messages` in OpenAI's form, with `tools` if there are any, or a text `prompt`. An answer at the end of
    the messages is not shown to the model. The output has the line with the key `answer`.

    Raises DataError for a line without a conversation, ParamsError for an unknown setting or a file that is not JSON
    lines, StoreError if the disk is full.
    """
    from raypath.components.inference.generation.local_chat import LocalChat

    chosen = AnswerParams().override(settings)
    source = Path(data).expanduser()
    if target.suffix != ".jsonl":
        raise ParamsError(f"-o {target}: answers are written as JSON lines", fix="end it in .jsonl")
    if source.suffix not in (".jsonl", ".ndjson") or not source.is_file():
        raise ParamsError(f"{data} is no file of JSON lines", fix='give one with lines such as {"messages": [...]}')
    model, done = LocalChat(folder), 0
    try:
        with new_file(target) as file:
            for lines in _groups(_lines(source)):
                for line, answer in zip(lines, _answers(model, lines, chosen), strict=True):
                    file.write((json.dumps({**line, ANSWER: answer}, ensure_ascii=False) + os.linesep).encode())
                done += len(lines)
    except OSError as error:
        if is_disk_full(error):
            what = f"no space left for {target}"
            raise StoreError(what, fix="free disk space, then run the same command again") from None
        raise
    if not done:
        target.unlink()
        raise DataError(f"{data} has no lines", fix="give a file with conversations")
    return done


def _answers(model: LocalChat, lines: Sequence[Mapping[str, Any]], chosen: AnswerParams) -> list[str]:
    """Answer some lines; those with the same tools go to the model together."""
    found = [""] * len(lines)
    groups: dict[str, list[int]] = {}
    for n, line in enumerate(lines):
        groups.setdefault(json.dumps(line.get("tools") or []), []).append(n)
    for tools, rows in groups.items():
        given = [_conversation(lines[n]) for n in rows]
        answers = model.generate(given, tools=json.loads(tools), **chosen.model_dump())
        for n, answer in zip(rows, answers, strict=True):
            found[n] = answer.text
    return found


def _conversation(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = line.get("messages")
    if messages is None:
        return [{"role": "user", "content": line["prompt"]}]
    return messages[:-1] if messages[-1].get("role") == "assistant" else messages  # type: ignore[no-any-return]


def _lines(source: Path) -> Iterator[dict[str, Any]]:
    with open(source, encoding="utf-8-sig") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if not isinstance(line, dict) or not _is_answerable(line):
                what = f"line {number} of {source} has no conversation"
                raise DataError(what, fix='give messages, such as [{"role": "user", "content": "..."}], or a prompt')
            yield line


def _is_answerable(line: Mapping[str, Any]) -> bool:
    messages = line.get("messages")
    if messages is None:
        return isinstance(line.get("prompt"), str)
    there = isinstance(messages, list) and all(isinstance(each, dict) for each in messages)
    return there and bool(messages) and (len(messages) > 1 or messages[0].get("role") != "assistant")


def _groups(lines: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for line in lines:
        group.append(line)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group
