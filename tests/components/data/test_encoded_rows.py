"""Encoded rows and rendered inputs: columns, targets, schemas, and each error of preprocess in full."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypath.components import DataError, Dataset
from raypath.components.core.columns import Column
from raypath.components.data.encoding import EncodeRows, encoded_schema, labels_of
from raypath.components.data.labels.relabel import Relabel
from raypath.components.data.labels.sets import pack_one_hot, remove_classes
from raypath.components.data.rendering import Renderer, choose_form, contents
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.data.tokenization.text_cut import TextCut
from raypath.components.data.tokenization.text_pair import TextPair
from raypath.components.data.tokenization.tokenizer import TextTokenizer, model_max_length, tokenizer_folder
from raypath.components.data.wording import percent, plural, verb
from raypath.components.preprocess import PreprocessParams, _max_length, _tokenizer, _warn_truncated

TEXT, PRICE = Column(name="t", stored="input.t"), Column(name="p", kind="number", stored="input.p")
BODY = Column(name="b", stored="input.b")
SETS = pa.list_(pa.string())


class _Tokenizer:
    def encode_with_truncation(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        return [[len(text)] for text in texts], [len(text) > 1 for text in texts]


def _encoded(label: Any, labels: tuple[str, ...] = ("a", "b", "c")) -> pa.Table:
    columns = {"text": pa.array(["x", "yy", ""][: len(label) if label is not None else 3])}
    columns |= {} if label is None else {"label": label}
    tokenizer: Any = _Tokenizer()
    return EncodeRows(tokenizer, labels, Renderer((Column(name="text"),)))(pa.table(columns))


def test_encoded_columns() -> None:
    plain = _encoded(None)
    assert plain.column_names == ["text", "input_ids", "truncated"]
    assert (plain["input_ids"].to_pylist(), plain["input_ids"].type) == ([[1], [2], [0]], pa.list_(pa.int32()))
    assert plain["truncated"].to_pylist() == [False, True, False]
    classes = _encoded(pa.array(["c", "a", "b"]))
    assert (classes["target"].to_pylist(), classes["target"].type) == ([2, 0, 1], pa.int32())
    sets = _encoded(pa.array([["c", "a"], [], ["b", "a"]], SETS))
    assert (sets["target"].to_pylist(), sets["target"].type) == ([[0, 2], [], [0, 1]], pa.list_(pa.int32()))
    numbers = _encoded(pa.array([[1.5], [2.0]], pa.list_(pa.float64())))
    assert (numbers["target"].to_pylist(), numbers["target"].type) == ([[1.5], [2.0]], pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (pa.array(["a", "x", "y"]), "x, y"),
        (pa.array([["y", "x"], ["a", "x"]], SETS), "x, y"),
        (pa.array([["f", "e", "d", "c", "b", "a", "g"]], SETS), "d, e, f, g"),
        (pa.array([list("uvwxyz")], SETS), "u, v, w, x, y"),
    ],
)
def test_classes_that_train_lacks(label: Any, names: str) -> None:
    with pytest.raises(DataError, match=f"^class {names} is not in train; move rows of it to train$"):
        _encoded(label)


def _dataset(folder: Path, label: Any, **fields: Any) -> Dataset:
    table = pa.table({"text": ["x"] * len(label), "label": label})
    with TableWriter(folder, table.schema) as writer:
        writer.write(table)
    return Dataset(uri=str(folder), rows=len(label), **fields)


def test_labels_and_schemas(tmp_path: Path) -> None:
    cases = {
        "int": (pa.array(["10", "9", "10"]), {"label_kind": "int"}, ("9", "10"), pa.int32()),
        "string": (pa.array(["b", "a", "b"]), {"label_kind": "string"}, ("a", "b"), pa.int32()),
        "set": (pa.array([["b"], [], ["a"]], SETS), {"label_kind": "set"}, ("a", "b"), pa.list_(pa.int32())),
        "number": (pa.array([[1.0]] * 3), {"label_kind": "number", "labels": ("y",)}, ("y",), pa.list_(pa.float32())),
    }
    for name, (label, fields, wanted, target) in cases.items():
        data = _dataset(tmp_path / name, label, **fields)
        assert labels_of(data) == wanted, name
        schema = encoded_schema(data.uri)
        assert (schema.names[-2:], schema.field("target").type) == (["input_ids", "target"], target)
    table = pa.table({"text": ["x"]})
    with TableWriter(tmp_path / "none", table.schema) as writer:
        writer.write(table)
    assert labels_of(Dataset(uri=str(tmp_path / "none"), rows=1, labels=("y",))) == ()
    assert encoded_schema(tmp_path / "none").names == ["text", "input_ids"]


def test_labels_are_replaced() -> None:
    table = pa.table({"label": ["1.0", "2", None], "text": list("abc")})
    assert Relabel({"1.0": "1"})(table).to_pydict() == {"label": ["1", "2", None], "text": ["a", "b", "c"]}
    sets = pa.table({"label": pa.array([["a", "b"], ["b"], []], SETS), "text": list("abc")})
    assert remove_classes(sets, {"b"})["label"].to_pylist() == [["a"], [], []]
    hot = pa.table({"text": list("abc"), "l.0": [True, False, None], "l.1": [True, False, True]})
    packed = pack_one_hot(hot, {"l.0": "x", "l.1": "y"})
    assert packed.to_pydict() == {"text": ["a", "b", "c"], "label": [["x", "y"], [], None]}
    assert pack_one_hot(hot, {}) is hot


ROWS = pa.table({"input.t": ["a", None], "input.p": [1.5, None], "input.b": ["c", ""]})


def test_forms_of_rows() -> None:
    assert Renderer((TEXT, BODY), "text").table(ROWS) == ["a", ""]
    assert Renderer((TEXT, PRICE, BODY), "fields").table(ROWS) == ["t: a\np: 1.5\nb: c", ""]
    [pair, empty] = Renderer((TEXT, BODY), "pair").table(ROWS)
    assert isinstance(pair, TextPair)
    assert (pair.first, pair.second, str(pair), str(empty)) == ("a", "c", "a\nc", "\n")
    again = pickle.loads(pickle.dumps(pair))
    assert (type(again), again.first, again.second) == (TextPair, "a", "c")
    assert Renderer((TEXT, PRICE)).stored == ["input.t", "input.p"]
    assert contents(ROWS, (TEXT, PRICE)).to_pylist() == ["a\x1f1.5", "\x1f"]


FINITE = "a finite number; give a finite number, or null where it is missing"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"t": ["a"]}, "column p is missing; give t, p"),
        ({"t": ["a"], "p": ["x"]}, f"p[0] is not {FINITE}"),
        ({"t": ["a", "b"], "p": [1, "x"]}, f"p[1] is not {FINITE}"),
        ({"t": ["a"], "p": [1], "z" * 99: [1]}, f"column {'z' * 64} is unknown; give t, p"),
        ({"t": ["a", " "], "p": [1, None]}, "row 1 has no value in any column; give one of t, p"),
        ({"t": [None], "p": [None]}, "row 0 has no value in any column; give one of t, p"),
    ],
)  # fmt: skip
def test_values_of_a_request(values: dict[str, Any], wanted: str) -> None:
    renderer = Renderer((TEXT, PRICE), "fields")
    with pytest.raises(DataError, match=f"^{re.escape(wanted)}$"):
        renderer.values(values)
    assert renderer.values({"p": [2, None], "t": [None, "b"]}) == ["p: 2", "t: b"]


@pytest.mark.parametrize(
    ("columns", "pairs", "wanted", "form"),
    [
        ((TEXT,), True, "auto", "text"), ((TEXT,), True, "fields", "text"), ((TEXT, BODY), True, "auto", "pair"),
        ((TEXT, BODY), True, "fields", "fields"), ((TEXT, BODY), False, "auto", "fields"),
        ((TEXT, PRICE), True, "auto", "fields"), ((TEXT, BODY, PRICE), True, "auto", "fields"),
        ((TEXT, BODY), True, "pair", "pair"), ((TEXT, BODY), False, "pair", ""), ((TEXT, PRICE), True, "pair", ""),
        ((TEXT,), True, "pair", ""), ((PRICE,), True, "auto", "text"),
    ],
)  # fmt: skip
def test_the_form_of_a_dataset(columns: tuple[Column, ...], pairs: bool, wanted: str, form: str) -> None:
    if form:
        assert choose_form(columns, pairs, wanted) == form
        return
    text = (
        "form pair takes two texts, and a tokenizer that separates them; "
        "leave preprocess.form out, or set -s preprocess.form=fields"
    )
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        choose_form(columns, pairs, wanted)


class _Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.log, self.warning, self.info = self, self._add, self._add

    def _add(self, text: str, *values: Any) -> None:
        self.lines.append(text % values)


@pytest.mark.parametrize(
    ("truncated", "limit", "wanted"),
    [
        (1, 512, "1 of 2,000 texts is longer than 64 tokens and is truncated; -s preprocess.max_length=128 keeps more"),
        (1_200, 100, "1,200 of 2,000 texts are longer than 64 tokens and are truncated; "
         "-s preprocess.max_length=100 keeps more"),
        (2, 64, "2 of 2,000 texts are longer than 64 tokens and are truncated; the model takes no more"),
        (2, None, "2 of 2,000 texts are longer than 64 tokens and are truncated; "
         "-s preprocess.max_length=128 keeps more"),
    ],
)  # fmt: skip
def test_truncated_texts(truncated: int, limit: int | None, wanted: str) -> None:
    ctx: Any = _Log()
    _warn_truncated(ctx, truncated, 2_000, 64, limit)
    assert ctx.lines == [wanted]


def test_tokenizers_and_lengths_that_are_set() -> None:
    from raypath.components.core.artifacts import Settings

    assert PreprocessParams().model_dump() == {
        "tokenizer": None, "max_length": "auto", "form": "auto", "too_long": "drop", "learn": "assistant"
    }  # fmt: skip
    assert _tokenizer(PreprocessParams(tokenizer="t"), Settings(values={"base": "b"})) == "t"
    assert _tokenizer(PreprocessParams(), Settings(values={"base": "b"})) == "b"
    nothing: Any = None
    assert _max_length(nothing, nothing, nothing, PreprocessParams(max_length=9), nothing) == 9
    settings = Settings(values={"max_length": 48})
    assert _max_length(nothing, nothing, nothing, PreprocessParams(), settings) == 48


@pytest.mark.parametrize(
    ("config", "settings", "limit"),
    [
        ({"max_position_embeddings": 512}, {}, 512),
        ({"max_position_embeddings": 514, "model_type": "roberta"}, {}, 512),
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta"}, {}, 512),
        ({"max_position_embeddings": 512}, {"model_max_length": 128}, 128),
        ({"max_position_embeddings": 512}, {"model_max_length": 1e30}, 512),
        ({}, {"model_max_length": 1e30}, None),
        ({}, {}, None),
    ],
)
def test_limits_of_models(tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], limit: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert model_max_length(tmp_path) == limit
    if limit:
        text = f"max_length {limit + 1} is more than the {limit} tokens that the model in {tmp_path} takes"
        with pytest.raises(DataError, match=f"^{re.escape(text)}; set -s preprocess.max_length={limit} or less$"):
            TextTokenizer(tmp_path, limit + 1)


def test_folders_that_are_no_tokenizer(tmp_path: Path) -> None:
    text = f"base model or tokenizer {tmp_path} is not a folder with "
    with pytest.raises(DataError) as caught:
        tokenizer_folder(str(tmp_path))
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith("; set -s finetune.base=PATH or hf://NAME")
    (tmp_path / "tokenizer.json").write_text("{")
    assert tokenizer_folder(str(tmp_path)) == tmp_path
    with pytest.raises(DataError, match=r"^the tokenizer in .* cannot be loaded \(.*\); give another folder$"):
        TextTokenizer(tmp_path, 16)


@pytest.mark.parametrize(
    ("character", "word"),
    [
        (".", True), ("a", False), ("7", False), (" ", False), ("\x7f", False), ("\x1f", False), ("~", True),
        ("\u4e00", True), ("\u9fff", True), ("\u3400", True), ("\u4dbf", True), ("\u4dc0", False),
        ("\U00020000", True), ("\U0002ffff", False), ("\uf900", True), ("\ufaff", True), ("\ufb00", False),
        ("\u33ff", False), ("。", True), ("é", False), ("あ", False), ("\u201c", True),
    ],
)  # fmt: skip
def test_characters_that_are_words(base: Path, character: str, word: bool) -> None:
    from tokenizers import Tokenizer

    cut = TextCut(Tokenizer.from_file(str(base / "tokenizer.json")))
    cut.at_cjk = True
    assert cut._is_word(character) is word


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 5, "0.0%"), (1, 1_000, "0.1%"), (9, 10_000, "<0.1%"), (99, 1_000, "9.9%"), (1, 10, "10%"), (0, 0, "0.0%"),
     (5, 5, "100%")],
)  # fmt: skip
def test_shares(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


def test_numbers_with_nouns() -> None:
    assert [plural(n, "row") for n in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]
    assert [plural(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [verb(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]
