"""Templates without a generation prompt: it is added, saved with the model, and not part of what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.conversations import Conversation, Message
from raypath.components.models.chat_template import ChatTemplate
from tests.tiny_chat import chat_tokenizer

WITH = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
PARTS = (
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% for part in message.content %}"
    "{{ part.text }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
)
SPACED = (
    "{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }}[/INST]{% else %}"
    " {{ message.content }}<|im_end|>{% endif %}{% endfor %}"
)
TURNS: list[Message] = [
    {"role": "user", "content": "Tea?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Milk \u00e9?"},
    {"role": "assistant", "content": "No."},
]


def _load(folder: Path, source: str) -> ChatTemplate:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = source
    tokenizer.save_pretrained(folder)
    return ChatTemplate.load(folder)


def _learned(template: ChatTemplate) -> str:
    made = template.encode(Conversation(tuple(TURNS)))
    return template.decode([number for number, learned in zip(made.ids, made.mask, strict=True) if learned], True)


@pytest.mark.parametrize("source", [CHATML, CHATML + "\n", PARTS], ids=["text", "line end", "parts"])
def test_it_is_added_and_saved_with_the_model(tmp_path: Path, source: str) -> None:
    template = _load(tmp_path / "base", source)
    assert (template.name, template.added) == ("tokenizer", "<|im_start|>assistant\n")
    assert _learned(template) == "Yes.<|im_end|>No.<|im_end|>"
    whole = template.encode(Conversation(tuple(TURNS)))
    prompt = template.encode_prompt(TURNS[:3])
    assert template.decode(prompt, True).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert whole.ids[: len(prompt)] == prompt
    chat_tokenizer().save_pretrained(tmp_path / "model")
    template.save(tmp_path / "model")
    saved = ChatTemplate.load(tmp_path / "model")
    assert saved.added == "", "it has one now"
    assert saved.encode_prompt(TURNS[:3]) == prompt


def test_transformers_renders_the_saved_template_alike(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    template = _load(tmp_path, CHATML + "\n")
    template.save(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    for turns in (TURNS[:1], TURNS[:3]):
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert text == template.render(turns, add_generation_prompt=True)
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == template.render(TURNS)


@pytest.mark.parametrize("source", [CHATML + WITH, SPACED], ids=["its own", "spaces alone"])
def test_a_template_that_needs_none_stays_as_it_is(tmp_path: Path, source: str) -> None:
    template = _load(tmp_path / "base", source)
    assert template.added == ""
    template.save(tmp_path)
    assert not (tmp_path / "chat_template.jinja").exists()
