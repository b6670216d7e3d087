"""Folders that are read as a whole: Delta tables, datasets that Hugging Face's `datasets` saved, texts by class."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import DataError
from raypath.components.core.columns import Column
from raypath.components.core.uris import fingerprint
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.sources.files import find
from tests.components.reading import ROWS, Read, write

LABELS = {"names": ["neg", "neutral", "pos"], "_type": "ClassLabel"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A Delta table of a, b, c, d from which b was removed, partitioned by label."""
    deltalake = pytest.importorskip("deltalake")
    folder = tmp_path / "table"
    first = pa.table({"text": ["a", "b", "c"], "label": ["x", "y", "x"]})
    deltalake.write_deltalake(str(folder), first, partition_by=["label"])
    deltalake.write_deltalake(str(folder), pa.table({"text": ["d"], "label": ["x"]}), mode="append")
    deltalake.DeltaTable(str(folder)).delete("text = 'b'")
    return folder


def test_live_rows_of_a_delta_table(table: Path, reading: Read) -> None:
    assert len(list(table.rglob("*.parquet"))) == 3
    rows = reading(table)[1]
    assert sorted(row["text"] for row in rows) == ["a", "c", "d"]
    assert {row["label"] for row in rows} == {"x"}
    assert reading(table)[1] == rows


def test_a_removal_is_another_key(table: Path) -> None:
    import deltalake

    before = fingerprint(str(table))
    assert fingerprint(str(table)) == before
    deltalake.DeltaTable(str(table)).delete("text = 'd'")
    assert fingerprint(str(table)) != before


def test_files_of_a_delta_table_are_not_read_one_by_one(table: Path, reading: Read, tmp_path: Path) -> None:
    shutil.copytree(table, tmp_path / "outer" / "inner")
    file = next(table.rglob("*.parquet"))
    for uri in (table / "label=x", table / "**" / "*.parquet", file, tmp_path / "outer"):
        with pytest.raises(DataError, match=r"is a Delta table, .* read the table as a whole, with -s read\.uri=/"):
            reading(uri)


@pytest.mark.parametrize("mark", [".hoodie/x", "metadata/v1.metadata.json"])
def test_other_tables_with_a_log(tmp_path: Path, reading: Read, mark: str) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.parquet", ROWS)
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("{}")
    with pytest.raises(DataError, match=r"Iceberg or Hudi table"):
        reading(tmp_path)


def hugging_face(columns: dict[str, Any], **features: Any) -> pa.Table:
    """A table with the metadata that `datasets` 5.2 writes."""
    text = {"dtype": "string", "_type": "Value"}
    info = json.dumps({"info": {"features": {"text": text, **features}}})
    return pa.table(columns).replace_schema_metadata({"huggingface": info})


def save(folder: Path, table: pa.Table, shards: int = 1) -> None:
    """Save as `Dataset.save_to_disk` does."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{shards:05d}.arrow" for n in range(shards)]
    for n, name in enumerate(names):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table.slice(n * len(table) // shards, len(table) // shards), max_chunksize=1000)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


CLASSES = {"text": ["a", "b", "c", "d"], "label": pa.array([0, 2, -1, 2], pa.int64())}


def test_names_of_classes_in_parquet(tmp_path: Path, reading: Read) -> None:
    pq.write_table(hugging_face(CLASSES, label=LABELS), tmp_path / "a.parquet")
    dataset, rows = reading(tmp_path / "a.parquet", nulls="drop")
    assert dataset.label_kind == "string"
    assert [row["label"] for row in rows] == ["neg", "pos", "pos"]
    assert [row["label"] for row in reading(tmp_path / "a.parquet", kind="number")[1]] == [[0.0], [2.0], [-1.0], [2.0]]
    pq.write_table(hugging_face({"text": ["a"], "label": [3]}, label=LABELS), tmp_path / "b.parquet")
    with pytest.raises(
        DataError, match=r"b.parquet has a class number without a name, in row 1 or later; wanted 0 to 2"
    ):
        reading(tmp_path / "b.parquet")


@pytest.mark.parametrize("kind", ["Sequence", "List", "LargeList"])
def test_names_of_classes_in_lists(tmp_path: Path, reading: Read, kind: str) -> None:
    tags = {"feature": LABELS, "_type": kind}
    values = pa.array([[0, 2], [], [1]], (pa.large_list if kind == "LargeList" else pa.list_)(pa.int64()))
    save(tmp_path / "a", hugging_face({"text": ["a", "b", "c"], "tags": values}, tags=tags))
    rows = reading(tmp_path / "a", label="tags", kind="set")[1]
    assert [row["label"] for row in rows] == [["neg", "pos"], [], ["neutral"]]


def test_a_saved_dataset(tmp_path: Path, reading: Read) -> None:
    texts = [f"text {n}" for n in range(5_000)]
    data = hugging_face({"text": texts, "label": [n % 3 for n in range(5_000)]}, label=LABELS)
    save(tmp_path / "a", data, shards=2)
    (tmp_path / "a" / "cache-123.arrow").write_bytes(b"of a filter that was not saved")
    rows = reading(tmp_path / "a")[1]
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows[:3]] == LABELS["names"]
    (tmp_path / "a" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00002.arrow is missing from its dataset"):
        reading(tmp_path / "a")


def test_a_saved_dataset_with_splits(tmp_path: Path, reading: Read) -> None:
    for name in ("train", "validation", "test"):
        save(tmp_path / name, hugging_face({"text": [name], "label": [0]}, label=LABELS))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    dataset, rows = reading(tmp_path)
    assert dataset.presplit
    assert {row["text"]: row["split"] for row in rows} == {"train": "train", "validation": "valid", "test": "test"}


def test_arrow_files(tmp_path: Path, reading: Read) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    assert reading(tmp_path / "a.arrow")[1] == ROWS
    (tmp_path / "b.arrow").write_bytes(b"SECRET" * 9)
    with pytest.raises(DataError, match=r"b.arrow is not an Arrow file, or is truncated"):
        reading(tmp_path / "b.arrow")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_text_that_is_not_utf_8_is_named_by_its_row(tmp_path: Path, reading: Read, kind: str) -> None:
    texts = pa.array([b"fine"] * 3_000 + [b"caf\xe9"], pa.binary()).view(pa.string())
    table = pa.table({"text": texts, "label": ["a"] * 3_001})
    if kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=f"a.{kind} has text that is not UTF-8 in row 3001"):
        reading(tmp_path / f"a.{kind}")


def texts(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_texts_by_class(tmp_path: Path, reading: Read) -> None:
    folder = texts(tmp_path / "a", pos__1="good", pos__2="two\nlines", neg__deep__1="bad")
    rows = [{"text": "bad", "label": "neg"}, {"text": "good", "label": "pos"}, {"text": "two\nlines", "label": "pos"}]
    assert reading(folder)[1] == rows
    folder = texts(tmp_path / "b", train__pos__1="good", test__neg__1="bad")
    assert reading(folder)[1] == [
        {"text": "bad", "label": "neg", "split": "test"},
        {"text": "good", "label": "pos", "split": "train"},
    ]


def test_what_is_wrong_with_texts_by_class(tmp_path: Path, reading: Read) -> None:
    folder = texts(tmp_path / "a", pos__1="good", stray="SECRET")
    with pytest.raises(DataError, match=r"a/stray\.txt is in no folder of a class; .*read\.label=none"):
        reading(folder)
    assert len(reading(folder, label=None)[1]) == 2
    (folder / "stray.txt").unlink()
    (folder / "pos" / "2.txt").write_bytes(b"\xe9t\xe9")
    with pytest.raises(DataError, match=r"a/pos/2\.txt is not UTF-8 at byte 0 .* -s read\.encoding=cp1252"):
        reading(folder)
    assert [row["text"] for row in reading(folder, encoding="cp1252")[1]] == ["good", "été"]
    with pytest.raises(DataError, match=r"flat.txt has an unknown extension"):
        reading(texts(tmp_path / "b", flat="x"))


def test_partitions_and_columns_that_files_of_a_delta_table_do_not_have(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    folder = str(tmp_path / "t")
    old = pa.table({"text": ["a", "b"], "label": pa.array([1, None], pa.int64())})
    new = pa.table({"text": ["c"], "label": pa.array([2], pa.int64()), "more": ["m"]})
    deltalake.write_deltalake(folder, old, partition_by=["label"])
    deltalake.write_deltalake(folder, new, mode="append", schema_mode="merge")
    [file] = find(folder, logging.getLogger("test"))
    found = pa.concat_tables(table for _, table in rows_of(file, Columns((Column(name="more"),), ("label",))))
    rows = zip(found["text"].to_pylist(), found["label"].to_pylist(), strict=True)
    assert set(rows) == {(None, "1"), (None, None), ("m", "2")}
    labels = [table for _, table in rows_of(file, Columns((Column(name="label", kind="category"),)))]
    assert sum(map(len, labels)) == 3, "no file has a column that is read"
