"""Bases without a template, templates that are not valid, and the sandbox in which they run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypath.components import DataError
from raypath.components.core.conversations import Conversation, Message
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.models.chat_template.rendering import TemplateRejects, render
from tests.components.models.chat_template.styles import write_style
from tests.components.models.chat_template.test_styles import CALL, TOOLS, TURNS, learned_texts


def without_template(folder: Path, style: str) -> Path:
    """A base of a style whose template is removed."""
    write_style(folder, style)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["chat_template"]
    path.write_text(json.dumps(settings))
    return folder


def test_a_default_for_a_vocabulary_with_its_tokens(tmp_path: Path) -> None:
    folder = without_template(tmp_path / "qwen", "qwen")
    template = ChatTemplate.load(folder)
    assert template.name == "chatml"
    text = "<|im_start|>user\nhi there<|im_end|>\n<|im_start|>assistant\n"
    assert template.render(TURNS[:1], add_generation_prompt=True) == text
    encoded = template.encode(Conversation(tuple(TURNS)))
    assert learned_texts(folder, encoded) == ["Yes, please.<|im_end|>", "answer is one<|im_end|>"]
    called = template.encode(Conversation(tuple(CALL), TOOLS))
    call, answer = learned_texts(folder, called)
    assert call.startswith('<tool_call>\n{"name": "tea", "arguments": {"sugar": 2')
    assert call.endswith("</tool_call><|im_end|>")
    assert answer == "Yes, please.<|im_end|>"
    assert '"parameters": {"type": "object"}' in template.render(CALL[:1], TOOLS)


def test_a_default_for_other_vocabularies(tmp_path: Path) -> None:
    folder = without_template(tmp_path / "gemma", "gemma")
    template = ChatTemplate.load(folder)
    assert template.name == "turns"
    turns: list[Message] = [{"role": "system", "content": "no tea"}, *TURNS]
    text = "no tea\n\nUser:\nhi there\n\nAssistant:\n"
    assert template.render(turns[:2], add_generation_prompt=True) == text
    encoded = template.encode(Conversation(tuple(turns)))
    assert learned_texts(folder, encoded) == ["Yes, please.<eos>", "answer is one<eos>"]
    prompt = template.encode_prompt(turns[:-1])
    assert encoded.ids[: len(prompt)] == prompt
    with pytest.raises(DataError, match='the default template "turns" has no place for calls of tools'):
        template.encode(Conversation(tuple(CALL), TOOLS))


@pytest.mark.parametrize("style", ["qwen", "gemma"])
def test_a_default_is_saved_with_the_model(style: str, tmp_path: Path) -> None:
    folder = without_template(tmp_path / style, style)
    first = ChatTemplate.load(folder)
    first.save(folder)
    again = ChatTemplate.load(folder)
    assert (folder / "chat_template.jinja").is_file()
    assert again.name == "tokenizer"
    assert again.encode(Conversation(tuple(TURNS))) == first.encode(Conversation(tuple(TURNS)))
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    text = theirs.apply_chat_template(TURNS[:3], tokenize=False, add_generation_prompt=True)
    assert text == first.render(TURNS[:3], add_generation_prompt=True)


def test_a_template_of_the_base_is_not_written_again(tmp_path: Path) -> None:
    ChatTemplate.load(write_style(tmp_path, "qwen")).save(tmp_path)
    assert not (tmp_path / "chat_template.jinja").exists()


def test_files_of_templates(tmp_path: Path) -> None:
    """The file comes before the setting, and one for tools is used with tools, as in transformers."""
    folder = write_style(tmp_path, "qwen")
    shown = "{% for message in messages %}{{ message.content + '<|im_end|>' }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(f"file {shown}")
    assert ChatTemplate.load(folder).render(TURNS[:1]) == "file hi there<|im_end|>"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(f"tools: {{{{ tools | length }}}} {shown}")
    assert ChatTemplate.load(folder).render(TURNS[:1], TOOLS) == "tools: 1 hi there<|im_end|>"
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    templates = {"default": f"setting {shown}", "tool_use": f"with tools {shown}"}
    named = [{"name": name, "template": source} for name, source in templates.items()]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": named}))
    (folder / "additional_chat_templates" / "tool_use.jinja").unlink()
    found = ChatTemplate.load(folder)
    assert found.render(TURNS[:1]) == "setting hi there<|im_end|>"
    assert found.render(TURNS[:1], TOOLS) == "with tools hi there<|im_end|>"


def test_special_tokens_that_only_config_json_numbers(tmp_path: Path) -> None:
    folder = without_template(tmp_path, "gemma")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataError, match="has neither a chat template nor a token that ends a text"):
        ChatTemplate.load(folder)
    number = ChatTemplate.load(write_style(tmp_path / "other", "gemma")).end_ids[1]
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [number, 1]}))
    assert ChatTemplate.load(folder).end_ids == (number,)


def test_templates_that_are_not_valid(tmp_path: Path) -> None:
    folder = write_style(tmp_path, "qwen")
    (folder / "chat_template.jinja").write_text("{% for message in messages %}\n{% endif %}")
    with pytest.raises(DataError, match=r"the chat template is not valid in line 2 .*chat_template\.jinja"):
        ChatTemplate.load(folder)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ missing.name }}",
        "{{ 'a' + 1 }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ strftime_now.__self__.year }}",
        "{% for a in range(10000000) %}a{% endfor %}",
        "{{ 1 / 0 }}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    ],
)
def test_templates_run_in_a_sandbox(source: str) -> None:
    with pytest.raises(TemplateRejects):
        render(source, messages=[{"role": "user", "content": "a"}])


def test_generated_text_is_found_in_macros_and_variables() -> None:
    source = (
        "{% macro one(text) %}{% generation %}{{ text }}{% endgeneration %}{% endmacro %}"
        "{% set kept %}[{{ one('a') }}]{% endset %}x{{ one('bc') }}y{{ kept }}"
    )
    found = render(source)
    assert found.text == "xbcy[a]"
    assert [found.text[start:end] for start, end in found.generated] == ["bc", "a"]


def test_dates_are_fixed() -> None:
    assert render("{{ strftime_now('%d %b %Y') }}").text == "26 Jul 2024"
