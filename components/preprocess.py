"""Encode texts as token ids and labels as targets: classes are fitted on train and applied to all splits.

Conversations are rendered by the base's chat template and get a mask of the tokens in the loss.

Ray Data encodes large data, each task a file, so that memory does not grow with the rows; small data is encoded in the
step's own process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from raypath.components.core.artifacts import Dataset, Settings, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import AUTO, Auto, Params, Source, Tokens
from raypath.components.data.wording import plural, verb
from raypath.components.models.base_models import resolved_base

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from raypath.components.core.columns import Column
    from raypath.components.data.encoding import EncodeRows
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.shard_files import ShardFile


class PreprocessParams(Params):
    """Tokenizer and maximum length."""

    tokenizer: Source | None = None
    """Folder or hf://NAME[@REVISION] of the tokenizer; none uses the base model's own."""
    max_length: Tokens | Auto = "auto"
    """Maximum length of a row in tokens, special tokens included; longer texts are truncated. auto follows the lengths
    of the texts; for conversations it is at most 4096 and the context of the model. For an encoder-decoder it is that
    of the source and of the target, each."""
    form: Literal["auto", "pair", "fields"] = "auto"
    """Form of several input columns: two texts as the tokenizer's pair, or all columns with their names, as in "title:
    ..."; auto takes the pair for two texts where the tokenizer separates them."""
    too_long: Literal["drop", "error"] = "drop"
    """Handling of conversations of more than max_length tokens: drop them, or raise an error. None is truncated."""
    learn: Literal["assistant", "all"] = "assistant"
    """Tokens on which the loss of conversations is computed: those of the assistant's messages, or all."""

    def using(self, base: str) -> Self:
        """Return these params with the tokenizer of `base` if none is set."""
        return self if self.tokenizer else self.model_copy(update={"tokenizer": base})


@component(version=1, by_shard=True)
def preprocess(ctx: Context, splits: Splits, params: PreprocessParams, settings: Settings | None = None) -> Splits:
    """Add `input_ids` (list of int32) and, for labelled rows, `target` to the same rows in the same order.

    settings: those that `configure` chose for what is "auto" in params, and the base whose tokenizer is used if none is
    set.
    target: int32, index in `labels`, for a class; a sorted list of indices for a set; a list of float32 for numbers.
    Rows of conversations also get `loss_mask` (list of bool), and preferences `rejected_ids` and `rejected_mask`; those
    of more than max_length tokens are dropped.
    Raises DataError for a tokenizer that cannot be loaded, a max_length beyond the model's, or a class that train
    lacks.
    """
    from raypath.components.data.encoding import EncodeRows, labels_of
    from raypath.components.data.rendering import Renderer, choose_form
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.stream import is_small
    from raypath.components.data.tokenization.conversation_rows import conversation_column
    from raypath.components.data.tokenization.tokenizer import TextTokenizer, model_max_length, tokenizer_folder
    from raypath.components.models.base_models import tokenizer_digest

    folder = tokenizer_folder(_tokenizer(params, settings))
    if column := conversation_column(splits.train.columns):
        return _conversations(ctx, splits, column, folder, params, settings)
    max_length = _max_length(ctx, splits, folder, params, settings)
    tokenizer, columns = TextTokenizer(folder, max_length), splits.train.columns
    form = choose_form(columns, tokenizer.encodes_pairs(), params.form)
    encode = EncodeRows(tokenizer, labels_of(splits.train), Renderer(columns, form))
    progress = ProgressReporter(ctx, sum(data.rows for _, data in _datasets(splits)))
    write = _write if is_small(_shards(splits)) else _write_in_tasks
    truncated = write(ctx, splits, encode, progress)
    progress.finish()
    if truncated:
        _warn_truncated(ctx, truncated, progress.total, max_length, model_max_length(folder))
    facts = {"labels": encode.labels, "tokenizer": tokenizer_digest(folder), "max_length": max_length, "form": form}
    return _encoded(splits, {name: data.rows for name, data in _datasets(splits)}, facts)


def _conversations(
    ctx: Context, splits: Splits, column: Column, folder: Path, params: PreprocessParams, settings: Settings | None
) -> Splits:
    """Encode rows of conversations or preferences."""
    from raypath.components.data.encoding import labels_of
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.stream import is_small
    from raypath.components.data.tokenization import conversation_rows
    from raypath.components.data.tokenization.tokenizer import check_length, model_max_length
    from raypath.components.models.base_models import tokenizer_digest
    from raypath.components.models.chat_template.source_target import load_template

    limit, chosen = model_max_length(folder), settings.values["max_length"] if settings else None
    chosen = params.max_length if isinstance(params.max_length, int) else chosen
    max_length = int(chosen or min(limit or conversation_rows.LIMIT, conversation_rows.LIMIT))
    check_length(folder, max_length)
    template, labels = load_template(folder), labels_of(splits.train)
    if template.name != "tokenizer":
        ctx.log.info("the base has no chat template; the default %s is used and saved with the model", template.name)
    elif template.added:
        added = template.added.strip().splitlines()[0]
        ctx.log.info("the base's chat template has no generation prompt; %s is added and saved with the model", added)
    encode = conversation_rows.EncodeConversations(
        template, column, max_length, labels, params.learn, params.too_long, limit
    )
    progress = ProgressReporter(ctx, sum(data.rows for _, data in _datasets(splits)))
    write = conversation_rows.write if is_small(_shards(splits)) else conversation_rows.write_in_tasks
    rows = write(ctx, {name: data.uri for name, data in _datasets(splits)}, encode, progress)
    progress.finish()
    conversation_rows.report_dropped(ctx.log, rows, dict(_datasets(splits)), max_length, limit)
    facts = {"labels": labels, "tokenizer": tokenizer_digest(folder), "max_length": max_length}
    return _encoded(splits, rows, facts)


def _encoded(splits: Splits, rows: Mapping[str, int], facts: Mapping[str, Any]) -> Splits:
    """Return the splits as they were written. rows: of each split."""
    found = {}
    for name, data in _datasets(splits):
        found[name] = data.model_copy(update={"uri": name, "digest": "", "rows": rows[name], **facts})
    return Splits(train=found["train"], valid=found["valid"], test=found["test"])


def _tokenizer(params: PreprocessParams, settings: Settings | None) -> str:
    """Return the tokenizer that is set, else the base that `configure` chose."""
    if params.tokenizer not in (None, AUTO):
        return str(params.tokenizer)
    if settings is not None:
        return str(settings.values["base"])
    if params.tokenizer is None:
        raise DataError("no tokenizer is set", fix="write preprocess(splits, p.preprocess.using(base)), or set it")
    return resolved_base(params.tokenizer)


def _max_length(ctx: Context, splits: Splits, folder: Path, params: PreprocessParams, settings: Settings | None) -> int:
    """Return the maximum length that is set, else that of `configure`, else one that fits a sample of the texts."""
    from raypath.components.configuration.facts import sample_splits
    from raypath.components.configuration.rules import choose_max_length

    if isinstance(params.max_length, int):
        return params.max_length
    if settings is not None:
        return int(settings.values["max_length"] or 0)
    facts, _ = sample_splits(splits, folder, params.form, ctx.seed)
    length = choose_max_length(facts.lengths, facts.limit, facts.source)
    ctx.log.info("chosen from the data: max_length=%d", length)
    return length


def _datasets(splits: Splits) -> list[tuple[str, Dataset]]:
    return [("train", splits.train), ("valid", splits.valid), ("test", splits.test)]


def _shards(splits: Splits) -> list[ShardFile]:
    """List the files of all splits in order."""
    from raypath.components.data.streaming.shard_files import shard_files

    return [shard for _, data in _datasets(splits) for shard in shard_files(data.uri)]


def _write(ctx: Context, splits: Splits, encode: EncodeRows, progress: ProgressReporter) -> int:
    """Write one folder per split. Returns the number of truncated texts."""
    import pyarrow.compute as pc

    from raypath.components.data.encoding import TRUNCATED, encoded_schema
    from raypath.components.data.streaming.parquet import TableWriter, scan

    truncated = 0
    for name, data in _datasets(splits):
        with TableWriter(ctx.out / name, encoded_schema(data.uri)) as writer:
            for table in map(encode, scan(data.uri)):
                writer.write(table)
                truncated += pc.sum(table[TRUNCATED]).as_py() or 0
                progress.add(table.num_rows)
    return truncated


def _write_in_tasks(ctx: Context, splits: Splits, encode: EncodeRows, progress: ProgressReporter) -> int:
    """Write the same files with Ray Data, each by one task. Returns the number of truncated texts."""
    from raypath.components.data.encoding import TRUNCATED, encoded_schema
    from raypath.components.data.streaming.row_files import dataset_files
    from raypath.components.data.streaming.shard_tasks import Output, write_outputs

    outputs = {
        name: Output(dataset_files(data.uri), encoded_schema(data.uri), encode, TRUNCATED)
        for name, data in _datasets(splits)
    }
    written = write_outputs(ctx, outputs, progress.add)
    return sum(shard.counted for shards in written.values() for shard in shards)


def _warn_truncated(ctx: Context, truncated: int, rows: int, length: int, limit: int | None) -> None:
    """Warn of truncated texts, and suggest twice the length, up to the model's limit."""
    better = min(2 * length, limit or 2 * length)
    advice = f"-s preprocess.max_length={better} keeps more" if better > length else "the model takes no more"
    are = verb(truncated, "is", "are")
    message = f"{truncated:,} of {plural(rows, 'text')} {are} longer than {length} tokens and {are} truncated; {advice}"
    ctx.log.warning("%s", message)
