"""Calls of tools in generated text: the form that a template writes, and what is parsed from it."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from raypath.components.models.chat_template import ChatTemplate
from raypath.components.models.chat_template.calls import NAME, CallForm, ParsedCall
from tests.components.models.chat_template.styles import write_style

HERMES = CallForm("<tool_call>", "</tool_call>")
LLAMA = CallForm("", "")
MISTRAL = CallForm("[TOOL_CALLS]", "")
LOOK = ParsedCall("look", '{"at": "a gull"}')


@pytest.mark.parametrize(
    ("style", "form", "tools"),
    [("qwen", HERMES, True), ("llama3", LLAMA, False), ("chatml", None, False), ("json", None, False)],
)
def test_the_form_of_a_template(style: str, form: CallForm | None, tools: bool, tmp_path: Path) -> None:
    template = ChatTemplate.load(write_style(tmp_path, style))
    assert template.call_form == form
    assert template.takes_tools == tools


@pytest.mark.parametrize(
    ("rendered", "form"),
    [
        (f'[TOOL_CALLS] [{{"name": "{NAME}", "arguments": {{"a": 1}}}}]', MISTRAL),
        (f'<|python_tag|>{{"name": "{NAME}", "parameters": {{}}}}', CallForm("<|python_tag|>", "")),
        (f'<think>\n\n</think>\n\n<tool_call>\n{{"name": "{NAME}", "arguments": {{}}}}\n</tool_call>', HERMES),
        (f"{NAME}(a=1)", None),
        (f'{{"tool": "{NAME}"}}', None),
        ("", None),
    ],
)
def test_forms_read_off_a_rendered_call(rendered: str, form: CallForm | None) -> None:
    assert CallForm.of(rendered) == form


@pytest.mark.parametrize(
    ("rendered", "lead"),
    [
        (f'<tool_call>\n{{"name": "{NAME}", "arguments": {{}}}}\n</tool_call>', "<tool_call>\n"),
        (f'[TOOL_CALLS] [{{"name": "{NAME}", "arguments": {{}}}}]', "[TOOL_CALLS] ["),
        (f'\n\n{{"name": "{NAME}", "parameters": {{}}}}', ""),
    ],
)
def test_the_text_before_a_call_is_kept(rendered: str, lead: str) -> None:
    form = CallForm.of(rendered)
    assert form is not None
    assert form.lead == lead


def test_the_schema_of_a_call() -> None:
    form = CallForm.of(f'{{"type": "function", "name": "{NAME}", "parameters": {{"raypath_argument": 1}}}}')
    assert form is not None
    place = {"type": "object", "properties": {"at": {"$ref": "#/$defs/Place"}}, "$defs": {"Place": {"enum": ["sea"]}}}
    schema = form.schema({"look": place, "go": None})
    call = {"type": "function", "name": "look", "parameters": {"at": "sea"}}
    jsonschema.validate(call, schema)
    jsonschema.validate({"type": "function", "name": "go", "parameters": {}}, schema)
    for wrong in ({"parameters": {"at": "land"}}, {"name": "fly"}, {"name": "go"}, {"type": "tool"}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(call | wrong, schema)


@pytest.mark.parametrize(
    ("form", "text", "before", "calls"),
    [
        (HERMES, '<tool_call>\n{"name": "look", "arguments": {"at": "a gull"}}\n</tool_call>', "", [LOOK]),
        (
            HERMES,
            'I look.\n<tool_call>{"name": "look", "arguments": {"at": "a gull"}}</tool_call>\n'
            '<tool_call>\n{"name": "go", "arguments": {}}\n</tool_call>',
            "I look.",
            [LOOK, ParsedCall("go", "{}")],
        ),
        (HERMES, '<tool_call>\n{"name": "look", "arguments": "{\\"a\\": 1}"}', "", [ParsedCall("look", '{"a": 1}')]),
        (LLAMA, '{"name": "look", "parameters": {"at": "a gull"}}', "", [LOOK]),
        (LLAMA, '{"name": "look", "parameters": {"at": "a gull"}}; {"name": "go"}', "", [LOOK, ParsedCall("go", "{}")]),
        (MISTRAL, '[TOOL_CALLS] [{"name": "look", "arguments": {"at": "a gull"}}]', "", [LOOK]),
        (HERMES, "no call", "no call", []),
        (HERMES, "<tool_call>{not json}</tool_call>", "<tool_call>{not json}</tool_call>", []),
        (HERMES, '<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
        (LLAMA, '{"name": "look", "parameters": [1]}', '{"name": "look", "parameters": [1]}', []),
        (LLAMA, '{"colour": "red"}', '{"colour": "red"}', []),
        (LLAMA, "[" * 3_000, "[" * 3_000, []),
        (LLAMA, "", "", []),
    ],
)
def test_calls_are_parsed(form: CallForm, text: str, before: str, calls: list[ParsedCall]) -> None:
    assert form.parse(text) == (before, calls)


@pytest.mark.parametrize(
    ("form", "text", "start"),
    [(HERMES, "abc", 3), (HERMES, "abc<tool", 3), (HERMES, "a<tool_call>x", 1), (LLAMA, "ab", 2), (LLAMA, " {", 1)],
)
def test_what_may_become_a_call_is_held_back(form: CallForm, text: str, start: int) -> None:
    assert form.begins(text) == start
