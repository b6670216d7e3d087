"""Modelfile for Ollama: the GGUF file, the chat template in Go's language, and where an answer stops."""

from __future__ import annotations

import json

from raypath.components.export.chat_style import ChatStyle


def modelfile(file: str, style: ChatStyle | None, bos_added: bool, stops: list[str]) -> str:
    """Return the Modelfile.

    Args:
        file: Name of the GGUF file in the same folder.
        style: Texts of the chat template; None leaves the template out, and Ollama looks at the one in the GGUF file.
        bos_added: The beginning-of-text token is added to a text's tokens, so that the template must not have it.
        stops: Texts that end an answer.
    """
    lines = [f"FROM ./{file}"]
    if style is not None and _can_be_quoted(style):
        lines.append(f'TEMPLATE """{_template(style, bos_added)}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    return "\n".join(lines) + "\n"


def stops_of(style: ChatStyle | None, eos: str) -> list[str]:
    """Return the texts that end an answer: the end of its turn, the end of a text, the beginning of a question."""
    turns = [style.answer[1].strip(), style.user[0].strip()] if style else []
    return [each for each in dict.fromkeys([*turns[:1], eos, *turns[1:]]) if each]


def _template(style: ChatStyle, bos_added: bool) -> str:
    """Return the template in Go's language, in one line but for the newlines of the texts themselves."""
    begin = "" if bos_added else style.begin
    system = "{{ .Content }}".join(style.system) if style.system else ""
    inside = ""
    if style.system_inside is not None:
        # The system message is the first of the messages, and the first question follows it.
        inside = "{{ if and $.System (eq $i 1) }}{{ $.System }}" + style.system_inside + "{{ end }}"
    default = "{{ if not .System }}" + style.default_system + "{{ end }}" if style.default_system else ""
    roles = {"system": system, "user": (inside + "{{ .Content }}").join(style.user)}
    branches = "".join(f'{{{{ else if eq .Role "{role}" }}}}{text}' for role, text in roles.items() if text)
    answer = '{{ if eq .Role "assistant" }}' + "{{ .Content }}".join(style.answer)
    turns = "{{ range $i, $message := .Messages }}" + answer + branches + "{{ end }}{{ end }}"
    return begin + default + turns + style.prompt


def _can_be_quoted(style: ChatStyle) -> bool:
    texts = [style.begin, style.default_system, *(style.system or ()), style.system_inside or ""]
    texts += [*style.user, *style.answer, style.prompt]
    return not any(mark in text for text in texts for mark in ("{{", '"""'))
