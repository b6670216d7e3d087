"""Plan of the training of a language model, from conversations before `preprocess`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raypath.components.configuration.decoders import choose_length
from raypath.components.configuration.facts import DataFacts, sample_rows, shape_of
from raypath.components.configuration.plan import TrainingPlan
from raypath.components.configuration.resolve import auto_names, resolved
from raypath.components.configuration.rules import choose
from raypath.components.configuration.speed import LARGE, Speed, measure_speed
from raypath.components.core.artifacts import Dataset, Splits, Values
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import AUTO
from raypath.components.models.base_models import base_folder
from raypath.components.models.conversion.packaged import CHAT
from raypath.components.training.compatibility import metadata_for
from raypath.components.training.params import FinetuneParams, ResolvedParams

if TYPE_CHECKING:
    import pyarrow as pa

    from raypath.components.models.chat_template.template import Learn
    from raypath.components.training.batches.token_dataset import TokenDataset

SAMPLE_ROWS = 512
"""Rows of train that are rendered and tokenized."""
NO_LIMIT = 2**31


def plan_decoder(
    ctx: Context, splits: Splits, params: FinetuneParams, max_length: int | str, learn: Learn = "assistant"
) -> TrainingPlan:
    """Choose all settings that are "auto", and estimate the time of the training.

    max_length, learn: settings of `preprocess`; max_length may be "auto". Raises DataError for a base that cannot be
    loaded, and data without conversations.
    """
    base = CHAT if params.base == AUTO else params.base
    folder = base_folder(base)
    rows = encode_sample(splits.train, folder, ctx.seed, learn)
    facts = _facts(splits, folder, rows)
    length = choose_length(facts.lengths, facts.limit) if max_length == AUTO else int(max_length)
    values: Values = {"base": base} if params.base == AUTO else {}
    reasons = [f"base={base}"] if values else []
    choice = choose(params, facts, length)
    found = resolved(params, values | choice.values)
    metadata = metadata_for(found, splits.train.model_copy(update={"max_length": length}), folder)
    threads = found.threads_of(ctx.workers, 1)
    made = token_rows(rows, length) if params.task != "preference" else preference_rows(rows, length)
    speed = measure_speed(folder, metadata, found, made, ctx.seed, threads, LARGE)
    epochs, reason = _within(params, found, facts, speed)
    if epochs != found.epochs:
        found = found.model_copy(update={"epochs": epochs})
    reasons += [*choice.reasons, *([reason] if reason else [])]
    share = 1.0 / max(1, found.workers) if ctx.gpus else 1.0
    seconds = speed.seconds(facts.rows, facts.valid_rows, found.epochs, share)
    return TrainingPlan(found, tuple(auto_names(params)), length, round(seconds, 1), facts, tuple(reasons))


def encode_sample(train: Dataset, folder: Path, seed: int, learn: Learn = "assistant") -> pa.Table:
    """Render and tokenize some conversations, as `preprocess` does all of them."""
    from raypath.components.data.encoding import labels_of
    from raypath.components.data.tokenization.conversation_rows import EncodeConversations, conversation_column
    from raypath.components.models.chat_template import ChatTemplate

    column = conversation_column(train.columns)
    if column is None:
        what = "the data has no conversations, on which a language model is fine-tuned"
        raise DataError(what, fix="set -s read.conversations=auto, or another task")
    rows = sample_rows(train, seed, SAMPLE_ROWS)
    return EncodeConversations(ChatTemplate.load(folder), column, NO_LIMIT, labels_of(train), learn)(rows)


def token_rows(table: pa.Table, max_length: int) -> TokenDataset:
    """Return the rows of at most `max_length` tokens as a training reads them. Raises DataError if there are none."""
    from raypath.components.training.batches.token_dataset import TokenDataset

    rows = zip(table["input_ids"].to_pylist(), table["loss_mask"].to_pylist(), strict=True)
    kept = [(ids, mask) for ids, mask in rows if len(ids) <= max_length]
    if not kept:
        what = f"no conversation of train has {max_length:,} tokens or less"
        raise DataError(what, fix="raise preprocess.max_length, or shorten the conversations")
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in kept], dtype=np.int64)])
    ids = np.concatenate([np.asarray(ids, np.int32) for ids, _ in kept])
    mask = np.concatenate([np.asarray(mask, np.bool_) for _, mask in kept])
    return TokenDataset(ids, offsets, np.zeros(len(kept), np.int64), loss_mask=mask)


def preference_rows(table: pa.Table, max_length: int) -> TokenDataset:
    """Return rows of two answers as `score_reference` makes them, with 0 in place of the log-probabilities.

    Labels alternate, so that any few rows have both. Raises DataError if no row is short enough.
    """
    from raypath.components.training.batches.reference_scores import add_scores, with_second_answers
    from raypath.components.training.batches.token_dataset import in_memory

    names = [name for name in ("input_ids", "rejected_ids") if name in table.column_names]
    lengths = np.stack([table[name].combine_chunks().value_lengths().to_numpy(zero_copy_only=False) for name in names])
    table = table.filter(lengths.max(axis=0) <= max_length)
    if not len(table):
        what = f"no pair of answers in train has {max_length:,} tokens or less"
        raise DataError(what, fix="raise preprocess.max_length, or shorten the conversations")
    if "target" in table.column_names:
        good = table["target"].to_numpy() > 0
        table = table.take(np.argsort(np.where(good, good.cumsum(), (~good).cumsum()), kind="stable"))
    table = with_second_answers(table, max_length)
    return in_memory(add_scores(table, np.zeros((len(table), 2), np.float32)))


def _facts(splits: Splits, folder: Path, rows: pa.Table) -> DataFacts:
    from raypath.components.data.tokenization.tokenizer import model_max_length

    lengths = [
        rows[name].combine_chunks().value_lengths()
        for name in ("input_ids", "rejected_ids")
        if name in rows.column_names
    ]

    layers, width = shape_of(folder)
    return DataFacts(
        rows=splits.train.rows,
        valid_rows=splits.valid.rows,
        counts=(),
        lengths=np.concatenate([each.to_numpy(zero_copy_only=False) for each in lengths]).astype(np.int64),
        limit=model_max_length(folder),
        layers=layers,
        width=width,
        source=splits.train.source,
    )


def _within(params: FinetuneParams, found: ResolvedParams, facts: DataFacts, speed: Speed) -> tuple[int, str]:
    """Return the passes that fit `params.minutes`, and the reason where they are fewer."""
    from raypath.components.configuration.budget import SPARE

    if params.minutes is None:
        return found.epochs, ""
    fitting = [n for n in range(1, found.epochs + 1) if _seconds(facts, speed, n) <= 60 * SPARE * params.minutes]
    if not fitting:
        return (1 if params.epochs == AUTO else found.epochs), f"takes longer than finetune.minutes={params.minutes:g}"
    if params.epochs != AUTO or max(fitting) == found.epochs:
        return found.epochs, ""
    return max(fitting), f"to fit finetune.minutes={params.minutes:g}"


def _seconds(facts: DataFacts, speed: Speed, epochs: int) -> float:
    return speed.seconds(facts.rows, facts.valid_rows, epochs)
