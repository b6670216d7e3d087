"""Redactor: replace personal data in texts, conversations and preferences by the settings of a `Redaction`.

Training and service call the same functions, so that a model reads requests in the form of its training data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from raypath.components.core.columns import Redaction
from raypath.components.core.conversations import Conversation, Message, Preference
from raypath.components.core.errors import DataError
from raypath.components.privacy.keys import RedactionKey, find_key
from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.names.finder import NameFinder, open_finders
from raypath.components.privacy.recogniser import VERSION, Span, find
from raypath.components.privacy.replacement.replacing import Replace, replacer

Count = Callable[[Kind], None]
KEYED = ("hash", "surrogate")


class Redactor:
    """Redact texts by a `Redaction`. Can be pickled; models of names are opened where they are first used.

    key: of a hash or of surrogates. Raises DataError for settings of another version of the recognisers.
    """

    def __init__(self, settings: Redaction, key: RedactionKey | None = None) -> None:
        if settings.version != VERSION:
            what = f"texts were redacted by version {settings.version} of the recognisers; this Raypath has {VERSION}"
            raise DataError(what, fix="train the model again, or use the Raypath that trained it")
        self.settings, self.key = settings, key
        self.kinds = frozenset(map(Kind, settings.kinds))

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "key": self.key, "kinds": self.kinds}

    @cached_property
    def _finders(self) -> tuple[NameFinder, ...]:
        return open_finders(self.settings.names)

    @cached_property
    def _replace(self) -> Replace:
        return replacer(self.settings.replacement, self.key)

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """Find personal data in each text."""
        more: list[list[Span]] = [[] for _ in texts]
        for finder in self._finders:
            for found, each in zip(more, finder.find(texts), strict=True):
                found += each
        return [find(text, self.kinds, also) for text, also in zip(texts, more, strict=True)]

    def texts(self, texts: Sequence[str], counts: Counter[Kind] | None = None) -> list[str]:
        """Redact texts, in order. counts: items by kind are added to it."""
        redacted = []
        for text, spans in zip(texts, self.spans(texts), strict=True):
            if counts is not None:
                counts.update(span.kind for span in spans)
            redacted.append(self.replaced(text, spans) if spans else text)
        return redacted

    def text(self, text: str, counts: Counter[Kind] | None = None) -> str:
        """Redact a text."""
        return self.texts([text], counts)[0]

    def replaced(self, text: str, spans: Sequence[Span]) -> str:
        """Return a text with other words in place of these ranges."""
        parts, at = [], 0
        for span in spans:
            parts += [text[at : span.start], self._replace(span.kind, text[span.start : span.end])]
            at = span.end
        return "".join([*parts, text[at:]])

    def messages(self, messages: Sequence[Message], counts: Counter[Kind] | None = None) -> tuple[Message, ...]:
        """Redact content, reasoning and arguments of calls; roles, names of tools and their descriptions remain."""
        return tuple(self._message(each, counts) for each in messages)

    def conversation(self, found: Conversation, counts: Counter[Kind] | None = None) -> Conversation:
        """Redact the messages of a conversation."""
        return Conversation(self.messages(found.messages, counts), found.tools)

    def preference(self, found: Preference, counts: Counter[Kind] | None = None) -> Preference:
        """Redact prompt, chosen and rejected messages."""
        messages, chosen = self.messages(found.messages, counts), self.messages(found.chosen, counts)
        return Preference(messages, chosen, self.messages(found.rejected, counts), found.tools)

    def arguments(self, text: str, counts: Counter[Kind] | None = None) -> str:
        """Redact the values of a JSON object, which remains one; another text is redacted as such."""
        try:
            given = json.loads(text)
        except ValueError:
            return self.text(text, counts)
        made = self._value(given, counts)
        return text if made == given else json.dumps(made, ensure_ascii=False)

    def _message(self, message: Message, counts: Counter[Kind] | None) -> Message:
        made: dict[str, Any] = dict(message)
        for name in ("content", "reasoning_content"):
            if made.get(name):
                made[name] = self.text(made[name], counts)
        if calls := message.get("tool_calls"):
            made["tool_calls"] = [
                {
                    **call,
                    "function": {
                        **call["function"],
                        "arguments": self.arguments(call["function"]["arguments"], counts),
                    },
                }
                for call in calls
            ]
        return cast(Message, made)

    def _value(self, value: Any, counts: Counter[Kind] | None, name: str = "") -> Any:
        if isinstance(value, Mapping):
            return {key: self._value(each, counts, key) for key, each in value.items()}
        if isinstance(value, list):
            return [self._value(each, counts, name) for each in value]
        if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
            # The name of a value is what tells a passport or a date of birth.
            lead = f"{name}: " if name else ""
            made = self.text(f"{lead}{value}", counts).removeprefix(lead)
            return value if made == str(value) else made
        return value


def redactor_of(settings: Redaction | None, folder: Path) -> Redactor | None:
    """Return the redactor of a model, None for one whose data was not redacted. folder: of the keys.

    Raises DataError if the key or a model of names is not here.
    """
    if settings is None:
        return None
    key = find_key(settings.key, folder) if settings.key else None
    made = Redactor(settings, key)
    made._finders  # noqa: B018 - a missing model is to be found now, and not by a request
    return made
