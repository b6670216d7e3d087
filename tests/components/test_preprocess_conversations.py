"""preprocess of conversations and preferences: ids, masks, long rows, and the same bytes by tasks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, Splits
from raypath.components.core.columns import Column, Role
from raypath.components.core.conversations import Conversation, Preference
from raypath.components.data.streaming import parquet, stream
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.data.tokenization.conversation_rows import EncodeConversations
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.preprocess import PreprocessParams, preprocess
from tests.components.models.chat_template.styles import write_style

MESSAGES = Column(name="messages", kind="messages", stored="input.messages")
PREFERENCE = Column(name="preference", kind="preference", stored="input.preference")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_style(tmp_path_factory.mktemp("base"), "qwen")


def conversation(number: int) -> Conversation:
    """A conversation that gets longer with its number."""
    return Conversation(
        (
            {"role": "user", "content": f"hi there {number}" + " ask again" * (number % 7)},
            {"role": "assistant", "content": "Yes, please." * (1 + number % 5)},
        )
    )


def preference(number: int) -> Preference:
    found = conversation(number)
    return Preference(found.messages[:1], found.messages[1:], ({"role": "assistant", "content": "No tea!"},))


def splits_of(folder: Path, column: Column, sizes: tuple[int, int, int], labelled: bool = False) -> Splits:
    """Splits of so many conversations or preferences."""
    made, first = {}, 0
    names = {column.stored: pa.string()} | ({"label": pa.string()} if labelled else {})
    for name, size in zip(("train", "valid", "test"), sizes, strict=True):
        values = [(conversation if column is MESSAGES else preference)(n).dumps() for n in range(first, first + size)]
        table = {column.stored: values} | ({"label": ["true", "false"] * (size // 2)} if labelled else {})
        with TableWriter(folder / name, pa.schema(names)) as writer:
            writer.write(pa.table(table, pa.schema(names)))
        kind = "bool" if labelled else "none"
        columns = (column, Column(name="label", kind="category", role=Role.TARGET, stored="label"))
        made[name] = Dataset(
            uri=str(folder / name), rows=size, label_kind=kind, columns=columns if labelled else (column,)
        )
        first += size
    return Splits(**made)


def rows_of(ctx: Context, part: Dataset) -> list[dict[str, Any]]:
    return list(pq.read_table(ctx.out / part.uri).to_pylist())


def test_ids_and_masks_of_conversations(make_context: Callable[..., Context], base: Path, tmp_path: Path) -> None:
    ctx, template = make_context("preprocess"), ChatTemplate.load(base)
    made = preprocess.fn(ctx, splits_of(tmp_path / "s", MESSAGES, (9, 2, 0)), PreprocessParams().using(str(base)))
    rows = rows_of(ctx, made.train)
    for number, row in enumerate(rows):
        assert row["input.messages"] == conversation(number).dumps()
        assert (row["input_ids"], row["loss_mask"]) == template.encode(conversation(number))
    assert (made.train.rows, made.valid.rows, made.test.rows) == (9, 2, 0)
    assert (made.train.max_length, made.train.tokenizer) == (4096, tokenizer_digest(base))
    assert (made.train.labels, made.train.form) == ((), "text")
    for part in (made.train, made.test):
        schema = pq.read_schema(ctx.out / part.uri / "00000.parquet")
        assert schema.field("input_ids").type == pa.list_(pa.int32())
        assert schema.field("loss_mask").type == pa.list_(pa.bool_())


def test_all_tokens_are_learned_if_asked_for(make_context: Callable[..., Context], base: Path, tmp_path: Path) -> None:
    ctx = make_context("preprocess")
    params = PreprocessParams(learn="all", tokenizer=str(base))
    made = preprocess.fn(ctx, splits_of(tmp_path / "s", MESSAGES, (3, 1, 1)), params)
    assert all(all(row["loss_mask"]) for row in rows_of(ctx, made.train))


def test_preferences_have_both_answers(make_context: Callable[..., Context], base: Path, tmp_path: Path) -> None:
    ctx, template = make_context("preprocess"), ChatTemplate.load(base)
    made = preprocess.fn(ctx, splits_of(tmp_path / "s", PREFERENCE, (5, 1, 1)), PreprocessParams().using(str(base)))
    for number, row in enumerate(rows_of(ctx, made.train)):
        [(chosen, rejected)] = template.encode_pairs([preference(number)])
        assert (row["input_ids"], row["loss_mask"]) == chosen
        assert (row["rejected_ids"], row["rejected_mask"]) == rejected


def test_labels_of_good_and_bad_are_targets(make_context: Callable[..., Context], base: Path, tmp_path: Path) -> None:
    ctx = make_context("preprocess")
    splits = splits_of(tmp_path / "s", MESSAGES, (4, 2, 2), labelled=True)
    made = preprocess.fn(ctx, splits, PreprocessParams().using(str(base)))
    assert made.train.labels == ("false", "true")
    assert [row["target"] for row in rows_of(ctx, made.train)] == [1, 0, 1, 0]
    assert pq.read_schema(ctx.out / "valid" / "00000.parquet").field("target").type == pa.int32()


def test_long_rows_are_dropped_and_counted(
    make_context: Callable[..., Context], base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ctx, template = make_context("preprocess"), ChatTemplate.load(base)
    splits = splits_of(tmp_path / "s", MESSAGES, (20, 2, 2))
    lengths = [len(template.encode(conversation(n)).ids) for n in range(24)]
    limit = sorted(lengths)[18]
    params = PreprocessParams(tokenizer=str(base), max_length=limit)
    with caplog.at_level(logging.WARNING, "raypath"):
        made = preprocess.fn(ctx, splits, params)
    longer = sum(length > limit for length in lengths)
    assert longer > 1
    assert caplog.messages == [
        f"{longer} of 24 rows are longer than {limit} tokens and are dropped; "
        f"-s preprocess.max_length={2 * limit} keeps more"
    ]
    assert made.train.rows + made.valid.rows + made.test.rows == 24 - longer
    rows = rows_of(ctx, made.train)
    assert [row["input.messages"] for row in rows] == [
        conversation(n).dumps() for n in range(20) if lengths[n] <= limit
    ], "none is truncated"
    first = next(n for n in range(20) if lengths[n] == max(lengths[:20]))
    told = rf"^row {first + 1} of train: it has {lengths[first]} tokens; at most {limit} are allowed; .*too_long=drop"
    with pytest.raises(DataError, match=told):
        preprocess.fn(make_context("again"), splits, params.model_copy(update={"too_long": "error"}))
    table = pa.table({MESSAGES.stored: [conversation(0).dumps()]})
    strict = EncodeConversations(ChatTemplate.load(base), MESSAGES, 3, too_long="error", limit=8)
    with pytest.raises(
        DataError, match=r"^it has \d+ tokens; at most 3 are allowed; .* the model takes no more; or drop"
    ):
        strict(table)
    with pytest.raises(DataError, match=r"every row of train has more than 3 tokens; set -s preprocess\.max_length=6"):
        preprocess.fn(make_context("again"), splits, params.model_copy(update={"max_length": 3}))


def test_the_limit_of_the_model(make_context: Callable[..., Context], tmp_path: Path) -> None:
    base = write_style(tmp_path / "base", "qwen")
    (base / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    splits = splits_of(tmp_path / "s", MESSAGES, (6, 0, 0))
    made = preprocess.fn(make_context("preprocess"), splits, PreprocessParams().using(str(base)))
    assert made.train.max_length == 64
    with pytest.raises(DataError, match="max_length 65 is more than the 64 tokens"):
        preprocess.fn(make_context("again"), splits, PreprocessParams(tokenizer=str(base), max_length=65))


@pytest.mark.parametrize("column", [MESSAGES, PREFERENCE], ids=["messages", "preference"])
def test_tasks_write_the_same_bytes(
    column: Column,
    make_context: Callable[..., Context],
    base: Path,
    tmp_path: Path,
    ray_head: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where files are not full, since rows were dropped."""
    monkeypatch.setattr(parquet, "FILE_ROWS", 2_048)
    splits = splits_of(tmp_path / "s", column, (2_500, 30, 30))
    params = PreprocessParams(tokenizer=str(base), max_length=45)
    made = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(stream, "INLINE_BYTES", limit)
        ctx = make_context("preprocess")
        found = preprocess.fn(ctx, splits, params)
        assert 0 < found.train.rows < 2_500
        made.append((found, {str(p.relative_to(ctx.out)): p.read_bytes() for p in sorted(ctx.out.rglob("*.parquet"))}))
    assert len(made[0][1]) == 4
    assert made[0] == made[1]


TWICE = Conversation(({"role": "user", "content": "hi"}, {"role": "user", "content": "there"}, conversation(0).answer))


def test_a_row_that_the_template_rejects_is_named(
    make_context: Callable[..., Context], tmp_path: Path, ray_head: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its number in the split, also where a task encodes it."""
    base = write_style(tmp_path / "base", "mistral")
    splits = splits_of(tmp_path / "s", MESSAGES, (2_500, 30, 30))
    path = tmp_path / "s" / "train" / "00000.parquet"
    values = pq.read_table(path)[MESSAGES.stored].to_pylist()
    values[2_100] = TWICE.dumps()
    pq.write_table(pa.table({MESSAGES.stored: values}), path)
    told = "^row 2,101 of train: the chat template of the base rejects messages with the roles user, user: roles must"
    for limit in (1 << 30, 0):
        monkeypatch.setattr(stream, "INLINE_BYTES", limit)
        with pytest.raises(DataError, match=told):
            preprocess.fn(make_context("preprocess"), splits, PreprocessParams(tokenizer=str(base)))


@pytest.mark.parametrize("sizes", [(4, 4, 0), (4, 0, 4)], ids=["valid", "test"])
def test_a_split_whose_rows_are_all_too_long_is_told(
    make_context: Callable[..., Context], base: Path, tmp_path: Path, sizes: tuple[int, int, int]
) -> None:
    splits = splits_of(tmp_path / "s", MESSAGES, sizes)
    lengths = [len(ChatTemplate.load(base).encode(conversation(n)).ids) for n in range(8)]
    name, most = ("valid" if sizes[1] else "test"), min(lengths[4:]) - 1
    with pytest.raises(DataError, match=f"every row of {name} has more than {most} tokens"):
        preprocess.fn(make_context("preprocess"), splits, PreprocessParams(tokenizer=str(base), max_length=most))
