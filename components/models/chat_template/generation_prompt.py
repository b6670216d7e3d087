"""Generation prompt of a template: what begins an answer, such as `<|im_start|>assistant` of ChatML.

Some templates have none, although they write such a text before each answer. A model would then learn to begin its
answers with it, so it is added to the template, which is saved with the model.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from raypath.components.models.chat_template.answers import ANSWER
from raypath.components.models.chat_template.files import ChatFiles
from raypath.components.models.chat_template.rendering import TemplateRejects, render


def with_generation_prompt(files: ChatFiles) -> ChatFiles:
    """Add what a template writes before an answer as its generation prompt, if it has none."""
    tokens = dict(files.tokens)
    found = _missing(files.source, tokens)
    if not found:
        return files
    tools = files.tool_source and _with(files.tool_source, _missing(files.tool_source, tokens))
    return replace(files, source=_with(files.source, found), tool_source=tools, added=found)


def _missing(source: str, tokens: dict[str, str]) -> str:
    """Return the text between a prompt and its answer that is in no prompt; "" where only spaces are."""

    def text(messages: list[Any], is_prompt: bool = False) -> str:
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": is_prompt}
        return render(source, **given, **tokens).text

    for content in (str, lambda each: [{"type": "text", "text": each}]):
        turns = [{"role": "user", "content": content("a")}, {"role": "assistant", "content": content(ANSWER)}]
        try:
            prompt, whole = text(turns[:1]), text(turns)
            if text(turns[:1], True) != prompt:
                return ""
        except TemplateRejects:
            continue
        if whole.startswith(prompt) and whole.count(ANSWER) == 1:
            before = whole[len(prompt) :].partition(ANSWER)[0]
            return before if before.strip() else ""
    return ""


def _with(source: str, added: str) -> str:
    """Return a template that ends a prompt with this text."""
    if not added:
        return source
    text = json.dumps(added, ensure_ascii=False)
    # The last line end of a template is not part of its text.
    return source.removesuffix("\n") + "{% if add_generation_prompt %}{{ " + text + " }}{% endif %}"
