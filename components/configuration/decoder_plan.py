"""Plan of the training of a language model, from conversations before `preprocess`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raypath.components.configuration.budget import fit_budget
from raypath.components.configuration.decoder_rules import choose_length
from raypath.components.configuration.facts import DataFacts, sample_rows, shape_of
from raypath.components.configuration.plan import TrainingPlan, training_seconds
from raypath.components.configuration.resolve import auto_names, resolved
from raypath.components.configuration.rules import Choice, choose
from raypath.components.configuration.speed import LARGE, Speed, measure_speed
from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset, Splits, Values
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import AUTO
from raypath.components.models.base_models import base_folder
from raypath.components.models.language_models import is_encoder_decoder
from raypath.components.tasks.catalog import task_type
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
    ctx: Context, splits: Splits, params: FinetuneParams, base: str, max_length: int | str, learn: Learn = "assistant"
) -> TrainingPlan:
    """Choose all settings that are "auto", and estimate the time of the training.

    base: the one that is taken if `params` leave the choice. max_length, learn: settings of `preprocess`; max_length
    may be "auto". Raises DataError for a base that cannot be loaded, and data without conversations.
    """
    base = base if params.base == AUTO else params.base
    folder = base_folder(base)
    task_type(params.task).check_base(base, folder)
    rows = encode_sample(splits.train, folder, ctx.seed, learn)
    facts = _facts(splits, folder, rows)
    apart = is_encoder_decoder(folder)
    given = longest_sides(rows) if apart else facts.lengths
    length = choose_length(given, facts.limit) if max_length == AUTO else int(max_length)
    values: Values = {"base": base} if params.base == AUTO else {}
    reasons = [f"base={base}"] if values else []
    choice = choose(params, facts, length)
    values, reasons = values | choice.values, [*reasons, *choice.reasons]
    found = resolved(params, values)
    metadata = metadata_for(found, splits.train.model_copy(update={"max_length": length}), folder)
    threads = found.threads_of(ctx.workers, 1)
    made = preference_rows(rows, length) if params.task == "preference" else token_rows(rows, length, apart)
    speed = measure_speed(folder, metadata, found, made, ctx.seed, threads, LARGE)
    budget = _fit_passes(params, found, facts, speed)
    found = resolved(params, values | budget.values)
    seconds = round(training_seconds(ctx, found, facts, speed), 1)
    return TrainingPlan(found, tuple(auto_names(params)), length, seconds, facts, (*reasons, *budget.reasons))


def encode_sample(train: Dataset, folder: Path, seed: int, learn: Learn = "assistant") -> pa.Table:
    """Render and tokenize some conversations, as `preprocess` does all of them."""
    from raypath.components.data.encoding import labels_of
    from raypath.components.data.tokenization.conversation_rows import EncodeConversations, conversation_column
    from raypath.components.models.chat_template.source_target import load_template

    column = conversation_column(train.columns)
    if column is None:
        what = "the data has no conversations, on which a language model is fine-tuned"
        raise DataError(what, fix="set -s read.conversations=auto, or another task")
    rows = sample_rows(train, seed, SAMPLE_ROWS)
    return EncodeConversations(load_template(folder), column, NO_LIMIT, labels_of(train), learn)(rows)


def token_rows(table: pa.Table, max_length: int, apart: bool = False) -> TokenDataset:
    """Return the rows of at most `max_length` tokens as a training reads them. Raises DataError if there are none.

    apart: source and target of a row have this length each.
    """
    from raypath.components.training.batches.token_dataset import in_memory

    lengths = longest_sides(table) if apart else _lengths(table).max(axis=0)
    table = _at_most(table, lengths, max_length, "conversation of train")
    return in_memory(table.select(["input_ids", "loss_mask"]))


def longest_sides(table: pa.Table) -> Array:
    """Return the tokens of the longer one of source and target, int64 [N]."""
    import pyarrow.compute as pc

    targets = np.array([sum(mask) for mask in table["loss_mask"].to_pylist()], np.int64)
    whole = np.asarray(pc.list_value_length(table["input_ids"]).to_numpy(), np.int64)
    return np.asarray(np.maximum(targets, whole - targets))


def preference_rows(table: pa.Table, max_length: int) -> TokenDataset:
    """Return rows of two answers as `score_reference` makes them, with 0 in place of the log-probabilities.

    Labels alternate, so that any few rows have both. Raises DataError if no row is short enough.
    """
    from raypath.components.training.batches.reference_scores import add_scores, with_second_answers
    from raypath.components.training.batches.token_dataset import in_memory

    table = _at_most(table, _lengths(table).max(axis=0), max_length, "pair of answers in train")
    if "target" in table.column_names:
        good = table["target"].to_numpy() > 0
        table = table.take(np.argsort(np.where(good, good.cumsum(), (~good).cumsum()), kind="stable"))
    table = with_second_answers(table, max_length)
    return in_memory(add_scores(table, np.zeros((len(table), 2), np.float32)))


def _at_most(table: pa.Table, lengths: Array, max_length: int, what: str) -> pa.Table:
    """Select the rows of at most `max_length` tokens. Raises DataError if there are none. what: a row."""
    table = table.filter(lengths <= max_length)
    if not len(table):
        fix = "raise preprocess.max_length, or shorten the conversations"
        raise DataError(f"no {what} has {max_length:,} tokens or less", fix=fix)
    return table


def _lengths(table: pa.Table) -> Array:
    """Return the tokens of each answer with its prompt, int64 [answers of a row, N]."""
    columns = [table[name].combine_chunks() for name in ("input_ids", "rejected_ids") if name in table.column_names]
    return np.stack([each.value_lengths().to_numpy(zero_copy_only=False) for each in columns]).astype(np.int64)


def _facts(splits: Splits, folder: Path, rows: pa.Table) -> DataFacts:
    from raypath.components.data.tokenization.tokenizer import model_max_length

    layers, width = shape_of(folder)
    return DataFacts(
        rows=splits.train.rows,
        valid_rows=splits.valid.rows,
        counts=(),
        lengths=_lengths(rows).ravel(),
        limit=model_max_length(folder),
        layers=layers,
        width=width,
        source=splits.train.source,
    )


def _fit_passes(params: FinetuneParams, found: ResolvedParams, facts: DataFacts, speed: Speed) -> Choice:
    """Return the passes that fit `params.minutes`, if they are fewer; all layers stay trained."""
    fixed = params.model_copy(update={"method": found.method, "frozen_layers": found.frozen_layers})
    return fit_budget(fixed, found, facts, speed)
