"""Text of a response while it is generated: whole characters, stop strings wherever the tokens are divided."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.inference.generation.engine import Finish
from raypath.components.inference.generation.streaming_engine import Piece
from raypath.components.models.chat_template.calls import CallForm
from raypath.components.models.chat_template.text_stream import IncrementalDecoder, StopStrings
from raypath.components.serving.api.openai.chat.choices import Choice
from tests.components.models.chat_template.styles import write_style


def _bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_texts_joined_are_the_text_of_all_ids(size: int) -> None:
    text = "naïve 👍🏽 café — 差 box"
    decoder, ids = IncrementalDecoder(_bytes), list(text.encode())
    parts = [decoder.push(ids[n : n + size]) for n in range(0, len(ids), size)]
    assert "".join([*parts, decoder.push([], last=True)]) == text
    assert not any("\ufffd" in part for part in parts), "a character is shown when it is complete"


def test_bytes_that_never_become_a_character_are_shown() -> None:
    decoder = IncrementalDecoder(_bytes)
    assert decoder.push([0x80]) == ""
    assert "\ufffd" in decoder.push([0x80] * 9)
    assert decoder.push([0xF0], last=True) == "\ufffd"


@pytest.mark.parametrize("family", ["qwen", "mistral"])
def test_spaces_between_tokens_stay(family: str, tmp_path: Path) -> None:
    from raypath.components.models.chat_template import ChatTemplate

    template = ChatTemplate.load(write_style(tmp_path, family))
    text = "hi there, user. Yes, please: one two 👍 three"
    ids = template.encode_text(text)
    decoder = IncrementalDecoder(template.decode)
    found = "".join([*(decoder.push([each]) for each in ids), decoder.push([], last=True)])
    assert found == template.decode(ids)
    assert found.strip() == text


def test_a_stop_string_ends_the_text_however_it_is_divided() -> None:
    text = "one END two"
    for cuts in itertools.combinations(range(len(text)), 3):
        stops = StopStrings(["END", "tw"])
        edges = [0, *cuts, len(text)]
        parts = [stops.push(text[a:b]) for a, b in itertools.pairwise(edges)]
        assert "".join(parts) == "one "
        assert stops.found


def test_what_only_looks_like_a_stop_string_is_shown() -> None:
    stops = StopStrings(["ENDE", "D!"])
    assert [stops.push("the EN"), stops.push("D"), stops.push(" is", last=True)] == ["the ", "", "END is"]
    assert not stops.found
    first = StopStrings(["bc", "abcd"])
    assert first.push("xabcd") == "x", "the one that begins first counts"


def _choice(form: CallForm | None, stops: Sequence[str] = ()) -> Choice:
    template: Any = SimpleNamespace(decode=lambda ids, special: _bytes(ids), is_special=lambda text: False)
    return Choice(0, template, stops, form)


def _push(choice: Choice, text: str, finish: Finish | None = None) -> Any:
    return choice.push(Piece("r", list(text.encode()), [0.0] * len(text.encode()), finish=finish))


def test_a_call_is_held_back_and_then_whole() -> None:
    choice = _choice(CallForm("<tool_call>", "</tool_call>"))
    assert _push(choice, "I look. <to").text == "I look. "
    assert _push(choice, 'ol_call>{"name": "look", ').text == ""
    last = _push(choice, '"arguments": {"a": 1}}</tool_call>', Finish.STOP)
    assert (last.text, last.finish) == ("", "tool_calls")
    assert last.calls == [("look", '{"a": 1}')]


def test_a_response_without_a_call_is_text() -> None:
    bare = _choice(CallForm("", ""))
    assert _push(bare, "Hello").text == "Hello"
    assert _push(bare, ' {"name": "look"}').text == ' {"name": "look"}'
    assert _push(bare, "", Finish.LENGTH).finish == "length"
    broken = _choice(CallForm("", ""))
    assert _push(broken, '{"name": ').text == ""
    assert _push(broken, "", Finish.LENGTH).text == '{"name": '


def test_a_stop_string_counts_before_the_limit() -> None:
    choice = _choice(None, ["END"])
    assert _push(choice, "a EN").text == "a "
    last = _push(choice, "D b", Finish.LENGTH)
    assert (last.text, last.finish, choice.finish) == ("", "stop", "stop")
