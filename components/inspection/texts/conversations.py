"""Conversations: their messages, traits, prompts and answers, each a value a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.conversations import ROLES, Conversation, Preference, is_text

COLUMN = "conversation"
"""Column of a table under inspection that has conversations or preferences as JSON."""
TRAITS = ("system message", "several responses", "tools", "calls of tools", "text without a prompt")
"""Traits of conversations, by their bits."""
_NOTHING = Conversation(({"role": "assistant", "content": ""},))


def stored(value: str | None) -> Conversation | Preference:
    """Read a stored value of either kind; an empty text for null."""
    if value is None:
        return _NOTHING
    found = json.loads(value)
    return Preference.of(found) if "chosen" in found else Conversation.of(found)


def conversation_columns(rows: Sequence[Conversation | Preference]) -> dict[str, Array]:
    """Compute the columns of rows by their names.

    Numbers of messages, of all and of each role, traits as bits, hashes of prompts and answers, and the words of
    answers. A preference counts with its chosen answer.
    """
    found = [each.with_chosen if isinstance(each, Preference) else each for each in rows]
    return {
        "messages": np.array([len(each.messages) for each in found], np.int32),
        **{f"role-{role}": np.array([_number(each, role) for each in found], np.int32) for role in ROLES},
        "traits": np.array([_traits(each) for each in found], np.uint8),
        "prompts": _hashes([each.prompt.dumps() for each in found]),
        "answers": _hashes([each.answer["content"] for each in found]),
        "answer_words": np.array([len(each.answer["content"].split()) for each in found], np.int32),
    }


def _number(found: Conversation, role: str) -> int:
    return sum(message["role"] == role for message in found.messages)


def _traits(found: Conversation) -> int:
    answers = [message for message in found.messages if message["role"] == "assistant"]
    has = (
        found.messages[0]["role"] == "system",
        len(answers) > 1,
        bool(found.tools),
        any(message.get("tool_calls") for message in answers),
        is_text(found.messages),
    )
    return sum(1 << n for n, each in enumerate(has) if each)


def _hashes(texts: Sequence[str]) -> Array:
    """Hash texts to 64 bits of BLAKE2b, uint64 [N]."""
    return np.frombuffer(b"".join(hashlib.blake2b(each.encode(), digest_size=8).digest() for each in texts), np.uint64)
