"""Ollama's template renders what the Jinja template does, for public styles of templates."""

from __future__ import annotations

import re
from typing import Any

import pytest

from raypath.components.core.conversations import Message
from raypath.components.export.chat_style import ChatStyle, style_of
from raypath.components.export.modelfile import modelfile, stops_of
from tests.components.export.decoders import CHATML

BOS, EOS = "<s>", "</s>"
TURNS = "{% for message in messages %}"
TEMPLATES = {
    "chatml": CHATML,
    "qwen2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama3": TURNS + "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "mistral": "{{ bos_token }}" + TURNS + "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "gemma3": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set prefix = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set prefix = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + (prefix if loop.first else '') + message['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "phi3": TURNS + "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "zephyr": TURNS + "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
}
WITH_SYSTEM = {"chatml", "qwen2", "llama3", "gemma3", "phi3", "zephyr"}
STOPS = {
    "chatml": ["<|im_end|>", "</s>", "<|im_start|>user"],
    "llama3": ["<|eot_id|>", "</s>", "<|start_header_id|>user<|end_header_id|>"],
    "mistral": ["</s>", "[INST]"],
    "gemma": ["<end_of_turn>", "</s>", "<start_of_turn>user"],
}


def render_jinja(template: str, messages: list[Message], prompt: bool) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=prompt, bos_token=BOS, eos_token=EOS
    )
    return str(texts[0])


def style(template: str) -> ChatStyle | None:
    return style_of(lambda messages, prompt: render_jinja(template, messages, prompt), BOS, EOS)


def render_go(template: str, messages: list[Message]) -> str:
    """The part of Go's template language that a Modelfile has here, by way of Jinja."""
    import jinja2

    words = {
        "range $i, $message := .Messages": ("for", "{% for message in messages %}{% set i = loop.index0 %}"),
        "if not .System": ("if", "{% if not system %}"),
        "if and $.System (eq $i 1)": ("if", "{% if system and i == 1 %}"),
        "$.System": ("", "{{ system }}"),
        ".Content": ("", "{{ message.content }}"),
    }
    ends: list[str] = []
    parts = []
    for n, part in enumerate(re.split(r"\{\{ (.*?) \}\}", template)):
        role = re.fullmatch(r'(?:else )?if eq \.Role "(\w+)"', part)
        if n % 2 == 0:
            parts.append("{% raw %}" + part + "{% endraw %}")
        elif part == "end":
            parts.append("{% end" + ends.pop() + " %}")
        elif role:
            parts.append("{% " + ("elif" if part.startswith("else") else "if") + f" message.role == '{role[1]}' %}}")
            ends += [] if part.startswith("else") else ["if"]
        else:
            kind, text = words[part]
            ends += [kind] if kind else []
            parts.append(text)
    assert not ends
    system = next((message["content"] for message in messages if message["role"] == "system"), "")
    code = jinja2.Environment(keep_trailing_newline=True).from_string("".join(parts))
    return str(code.render(messages=messages, system=system))


def talk(*roles: str) -> list[Message]:
    return [{"role": role, "content": f"{role} says {n}, or {n + 1}."} for n, role in enumerate(roles)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_ollama_renders_what_the_template_renders(name: str) -> None:
    found = style(TEMPLATES[name])
    assert found is not None
    talks = [talk("user"), talk("user", "assistant", "user"), talk(*["user", "assistant"] * 3, "user")]
    if name in WITH_SYSTEM:
        talks += [talk("system", "user"), talk("system", "user", "assistant", "user")]
    for bos_added in (False, True):
        text = modelfile("m.gguf", found, bos_added, [])
        template = text.partition('TEMPLATE """')[2].partition('"""')[0]
        for messages in talks:
            wanted = render_jinja(TEMPLATES[name], messages, True)
            assert render_go(template, messages) == (wanted.removeprefix(BOS) if bos_added else wanted)


@pytest.mark.parametrize("name", STOPS)
def test_an_answer_stops_at_the_end_of_its_turn(name: str) -> None:
    found = style(TEMPLATES[name])
    assert stops_of(found, EOS) == STOPS[name]
    text = modelfile("m.gguf", found, True, STOPS[name])
    assert text.startswith("FROM ./m.gguf\n")
    assert [line for line in text.splitlines() if line.startswith("PARAMETER")] == [
        f'PARAMETER stop "{stop}"' for stop in STOPS[name]
    ]


@pytest.mark.parametrize(
    "template",
    [
        TURNS + "{{ message['content'] | upper }}{% endfor %}",
        TURNS + "{{ loop.index }}: {{ message['content'] }}\n{% endfor %}",
        "{{ raise_exception('never') }}",
        TURNS + "{{ message['content'] }}{{ message['content'] }}{% endfor %}",
        "{{ messages | length }}" + TURNS + "[{{ message['role'] }}]{{ message['content'] }}{% endfor %}",
    ],
    ids=["changed", "numbered", "raises", "twice", "counted"],
)
def test_templates_that_are_more_than_texts_are_left_to_ollama(template: str) -> None:
    assert style(template) is None
    assert modelfile("m.gguf", None, False, ["</s>"]) == 'FROM ./m.gguf\nPARAMETER stop "</s>"\n'


def test_a_template_that_go_would_read_otherwise_is_left_out() -> None:
    braces: Any = TURNS + "{{ '{{' + message['role'] + '}}' + message['content'] + '\n' }}{% endfor %}"
    assert style(braces) is not None
    assert "TEMPLATE" not in modelfile("m.gguf", style(braces), False, [])
