"""Likelihood of reference answers: the sums that loss, perplexity and next-token accuracy follow from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.conversations import Conversation
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.models.chat_template.source_target import SourceTarget
from raypath.components.models.language_models import TEXT_TO_TEXT
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task

TOKENS = {"cpu": 2_048, "cuda": 32_768}
"""Tokens of a packed batch."""


def score_answers(
    model: Any,
    template: ChatTemplate | SourceTarget,
    metadata: ModelMetadata,
    conversations: Sequence[Conversation],
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Return float64 [N, 3]: negative log likelihood in nats, tokens in the loss, and those predicted correctly.

    The tokens are those of the training loss. The model's attention is replaced (models/decoder): generate
    before, not after. metadata: of the fine-tuned model; the base is scored by the same.
    """
    import torch

    from raypath.components.models.decoder.packed_batch import packed_rows
    from raypath.components.training.batches.token_dataset import TokenDataset

    name = TEXT_TO_TEXT if getattr(model.config, "is_encoder_decoder", False) else "text_generation"
    task = load_task(metadata.model_copy(update={"task": name}))
    module = task.module(model)
    device = model.device
    encoded = template.encode_all(conversations)
    found = np.zeros((len(encoded), 3))
    done = 0
    with torch.no_grad():
        for rows in _groups([len(each.ids) for each in encoded], TOKENS[device.type]):
            chosen = [encoded[row] for row in rows]
            offsets = np.concatenate([[0], np.cumsum([len(each.ids) for each in chosen])]).astype(np.int64)
            joined = TokenDataset(
                np.concatenate([np.asarray(each.ids, np.int32) for each in chosen]),
                offsets,
                np.zeros(len(chosen), np.int64),
                loss_mask=np.concatenate([np.asarray(each.mask, bool) for each in chosen]),
            )
            batch = {name: value.to(device) for name, value in packed_rows(joined).items()}
            found[rows] = task.record(task.forward(module, batch), batch).double().cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(encoded))
    return found


def _groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Group rows in order, up to `most` tokens together."""
    groups: list[list[int]] = []
    total = 0
    for row, length in enumerate(lengths):
        if not groups or total + length > most:
            groups.append([])
            total = 0
        groups[-1].append(row)
        total += length
    return groups
