"""Tokens that a key reserves for a request before its body is read: the most that the body may have."""

from __future__ import annotations

from collections.abc import Collection

from raypath.components.core.columns import is_single_text
from raypath.components.serving.api.route_table import EMBED
from raypath.components.serving.model_versions import LoadedModel
from raypath.components.serving.params import ServeParams

_VALUE_TOKENS = 20
"""Maximum number of tokens of a number, a word for true or false, and the marks around a value."""


def max_tokens(scope: str, models: Collection[LoadedModel], settings: ServeParams) -> int:
    """Return the maximum number of tokens of a request that requires this scope, to any of these models."""
    texts = settings.max_embeddings if scope == EMBED else settings.max_items
    return texts * max((model.metadata.max_length for model in models), default=0)


def tokens_per_byte(models: Collection[LoadedModel]) -> int:
    """Return the maximum number of tokens that a byte of a request may stand for.

    A token of a text has at least one byte. A value of several columns is rendered with the column's name, and as a
    word or digits, and a request may send it in one byte.
    """
    several = [model.metadata.columns for model in models if not is_single_text(model.metadata.columns)]
    return max((len(column.name.encode()) + _VALUE_TOKENS for each in several for column in each), default=1)
