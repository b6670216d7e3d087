"""A prompt of many answers is rendered and tokenized once, and the rows are those of each answer alone."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.conversations import Conversation, Message, Preference
from raypath.components.models.chat_template import ChatTemplate
from tests.components.models.chat_template.styles import STYLES, write_style

ANSWERS = 40
PROMPT: list[Message] = [
    {"role": "user", "content": "is it hot <|im_end|>"},
    {"role": "assistant", "content": "tea is hot"},
    {"role": "user", "content": "and the milk " * 50},
]


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("name", STYLES)
def test_rows_are_those_of_each_answer_alone(name: str, tmp_path: Path) -> None:
    template = ChatTemplate.load(write_style(tmp_path, name))
    rows = [Conversation((*PROMPT, _answer(f"answer {n % 7}"))) for n in range(20)]
    contexts = [n % 2 * 3 for n in range(20)]
    found = template.encode_all(rows, contexts=contexts)
    assert found == [template.encode(row, context=context) for row, context in zip(rows, contexts, strict=True)]
    pairs = [Preference(tuple(PROMPT), (_answer(f"yes {n}"),), (_answer("no"),)) for n in range(5)]
    assert template.encode_pairs(pairs) == [template.encode_pairs([pair])[0] for pair in pairs]


def test_the_work_grows_with_the_answers_and_not_with_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate.load(write_style(tmp_path, "qwen"))
    tokenized: list[int] = []
    prompts: list[int] = []
    encoded, divided = template._encoder._encoded, template._prompt

    def counting(pieces: Any) -> Any:
        tokenized.append(sum(len(piece.text) for piece in pieces))
        return encoded(pieces)

    def dividing(messages: Any, *more: Any) -> Any:
        prompts.append(len(messages))
        return divided(messages, *more)

    monkeypatch.setattr(template._encoder, "_encoded", counting)
    monkeypatch.setattr(template, "_prompt", dividing)
    pairs = [Preference(tuple(PROMPT), (_answer(f"yes {n}"),), (_answer("no"),)) for n in range(ANSWERS)]
    template.encode_pairs(pairs[:1])
    template.encode_pairs(pairs)
    assert prompts == [3, 3]
    one, many = tokenized
    assert many - one < ANSWERS * 60, "the answers alone"
