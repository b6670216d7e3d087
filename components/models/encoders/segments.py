"""Segments of text pairs: token type ids, which BERT adds for the second text, computed from the token ids.

Rows are stored and batched as token ids alone. The second text begins after the first separator, and no separator can
occur within a text, so that the ids determine the segments. Every backend thus keeps one call signature, and the folder
stays an ordinary one: transformers' own tokenizer gives the same token type ids.
"""

from __future__ import annotations

from typing import Any

import torch

from raypath.components.models.encoders.fast_bert import replace_forward


def add_segments(model: Any, separator: int | None) -> bool:
    """Make an encoder with token types compute them from the token ids; return False for one without.

    separator: id of the token that separates the texts of a pair, None if there is none.
    """
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    types = getattr(getattr(embeddings, "token_type_embeddings", None), "num_embeddings", 0)
    if separator is None or types < 2:
        return False
    embeddings.separator = separator
    replace_forward(embeddings, _with_segments)
    return True


def segments_of(ids: torch.Tensor, separator: int) -> torch.Tensor:
    """Token type of each token: 0 up to and including the first separator, then 1. ids, result int64 [B, L]."""
    marks = (ids == separator).long()
    return (marks.cumsum(1) - marks).clamp(max=1)


def _with_segments(embeddings: Any, input_ids: Any = None, token_type_ids: Any = None, *more: Any, **named: Any) -> Any:
    if token_type_ids is None and input_ids is not None:
        token_type_ids = segments_of(input_ids, embeddings.separator)
    return type(embeddings).forward(embeddings, input_ids, token_type_ids, *more, **named)
