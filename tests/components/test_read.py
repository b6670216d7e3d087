"""read: real files in, the rows as they were out, or one line that says what is wrong and where."""

from __future__ import annotations

import gzip
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError
from raypath.components.data.sources import samples
from raypath.components.data.streaming import stream
from raypath.components.data.streaming.manifest import MANIFEST
from raypath.components.read import ReadParams, read
from tests.components.reading import ROWS, Read, write


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.json", "a.parquet", "a.csv.gz", "a.tsv.gz", "a.jsonl.gz"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, reading: Read, name: str) -> None:
    dataset, rows = reading(write(tmp_path / name, ROWS))
    assert rows == ROWS
    assert dataset.label_kind == "string"
    assert not dataset.presplit


def test_bytes_are_the_same_each_time_and_by_ray(
    tmp_path: Path, make_context: Callable[..., Context], ray_head: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        write(tmp_path / f"{n}.csv", [{"text": f"text {n} {i}", "label": "ab"[i % 2]} for i in range(1500)])
    made = []
    for inline in (1 << 30, 1 << 30, 0):
        monkeypatch.setattr(stream, "INLINE_BYTES", inline)
        ctx = make_context("read")
        read.fn(ctx, ReadParams(uri=str(tmp_path / "*.csv")))
        made.append({path.name: path.read_bytes() for path in sorted(ctx.out.glob("*.parquet"))})
        assert (ctx.out / MANIFEST).is_file() == (inline == 0)
    assert list(made[0]) == ["00000.parquet"]
    assert made[0] == made[1] == made[2]


def test_a_worker_s_error_comes_out_as_itself(
    tmp_path: Path, reading: Read, ray_head: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.csv", ROWS)
    (tmp_path / "b.csv").write_text("text,label\nfine,good\nSECRET,good,7\n")
    monkeypatch.setattr(stream, "INLINE_BYTES", 0)
    with pytest.raises(DataError) as caught:
        reading(tmp_path)
    assert type(caught.value) is DataError
    assert str(caught.value).startswith("b.csv row 2 has 3 columns; wanted 2;")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("labels", "kind", "kept"),
    [
        ([1, 2, 10], "int", ["1", "2", "10"]),
        ([1.0, 2.0, None], "int", ["1", "2"]),
        ([True, False, True], "bool", ["true", "false", "true"]),
        ([" a", "b ", "007"], "string", ["a", "b", "007"]),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_typed_labels(tmp_path: Path, reading: Read, labels: list[Any], kind: str, kept: list[str], name: str) -> None:
    path = write(tmp_path / name, [{"text": "x", "label": label} for label in labels])
    dataset, rows = reading(path, nulls="drop")
    assert dataset.label_kind == kind
    assert [row["label"] for row in rows] == kept


@pytest.mark.parametrize(
    ("labels", "kind", "kept"),
    [
        (["1", "2.0", "-3"], "int", ["1", "2", "-3"]),
        (["True", "FALSE", "true"], "bool", ["true", "false", "true"]),
        (["01", "02", "10"], "string", ["01", "02", "10"]),
        (["1", "2", "many"], "string", ["1", "2", "many"]),
        (["NA", "null", "nan"], "string", ["NA", "null", "nan"]),
    ],
)
def test_csv_labels_are_settled_over_all_rows(
    tmp_path: Path, reading: Read, labels: list[str], kind: str, kept: list[str]
) -> None:
    path = write(tmp_path / "a.csv", [{"text": "x", "label": label} for label in labels])
    dataset, rows = reading(path)
    assert (dataset.label_kind, [row["label"] for row in rows]) == (kind, kept)


def test_a_late_change_of_type_is_no_crash(tmp_path: Path, reading: Read) -> None:
    rows = [{"text": f"{n}", "label": str(n % 3)} for n in range(5000)] + [{"text": "x", "label": "three"}]
    dataset, found = reading(write(tmp_path / "a.csv", rows))
    assert dataset.label_kind == "string"
    assert found == rows


def test_semicolons_and_a_byte_order_mark(tmp_path: Path, reading: Read) -> None:
    (tmp_path / "a.csv").write_text("text;label\nun, deux;x\ntrois;y\n", encoding="utf-8-sig")
    assert reading(tmp_path / "a.csv")[1] == [{"text": "un, deux", "label": "x"}, {"text": "trois", "label": "y"}]


def test_pandas_categories_and_other_columns(tmp_path: Path, reading: Read) -> None:
    table = pa.table({"n": [1, 2], "body": ["a", "b"], "y": pa.array(["u", "v"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    _, rows = reading(tmp_path / "a.parquet", text="body", label="y")
    assert rows == [{"text": "a", "label": "u"}, {"text": "b", "label": "v"}]


def test_without_labels(tmp_path: Path, reading: Read) -> None:
    assert reading(write(tmp_path / "a.csv", ROWS), label=None)[1] == [{"text": row["text"]} for row in ROWS]


def test_folder_of_mixed_formats_with_named_parts(
    tmp_path: Path, reading: Read, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train-0.csv", ROWS)
    write(tmp_path / "reviews_test.jsonl", ROWS[:1])
    (tmp_path / "README.md").write_text("notes")
    dataset, rows = reading(tmp_path)
    assert dataset.presplit
    assert [(row["text"], row["split"]) for row in rows] == [
        (ROWS[0]["text"], "test"),
        (ROWS[0]["text"], "train"),
        (ROWS[1]["text"], "train"),
    ]
    assert "README.md" in caplog.text


def test_parts_by_column_group_and_separate_files(tmp_path: Path, reading: Read) -> None:
    words = ["Train", "validation", "dev", "TEST", ""]
    path = write(tmp_path / "a.csv", [{"text": "x", "label": "a", "split": w, "who": f"w{w}"} for w in words])
    dataset, rows = reading(path, group="who")
    assert dataset.presplit
    assert [row["split"] for row in rows] == ["train", "valid", "valid", "test", None]
    assert [row["group"] for row in rows] == [f"w{w}" for w in words]
    assert "split" not in reading(path, split=None)[1][0]
    other = write(tmp_path / "b.csv", ROWS)
    parts = [row["split"] for row in reading(other, test=str(other))[1]]
    assert parts == ["train", "train", "test", "test"]


def test_the_column_split_may_be_the_text_or_the_label(tmp_path: Path, reading: Read) -> None:
    path = write(tmp_path / "a.csv", [{"text": "x", "split": "mine"}, {"text": "y", "split": "yours"}])
    dataset, rows = reading(path, label="split")
    assert not dataset.presplit
    assert rows == [{"text": "x", "label": "mine"}, {"text": "y", "label": "yours"}]


def test_names_without_a_train_part_are_no_parts(tmp_path: Path, reading: Read) -> None:
    for name in ("valid.csv", "test.csv"):
        write(tmp_path / name, ROWS)
    dataset, rows = reading(tmp_path)
    assert not dataset.presplit
    assert rows == ROWS * 2


@pytest.mark.parametrize("kind", ["class", "set"])
def test_a_thousand_classes_are_read(tmp_path: Path, reading: Read, kind: str) -> None:
    path = write(tmp_path / "a.csv", [{"text": "x", "label": f"c{n}"} for n in range(1000)])
    assert reading(path, kind=kind)[0].rows == 1000


def test_nulls_can_be_dropped(tmp_path: Path, reading: Read, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[dict[str, Any]] = [{"text": text, "label": "x"} for text in ("a", None, " ")] + [{"text": "b"}]
    assert reading(write(tmp_path / "a.jsonl", rows), nulls="drop")[1] == rows[:1]
    assert "dropped 3 rows" in caplog.text


def test_sample(make_context: Callable[..., Context]) -> None:
    ctx = make_context("read")
    made = read.fn(ctx, ReadParams(text="review", label="score"))
    rows = pq.read_table(ctx.out).to_pylist()
    assert made.rows == 5000
    assert made.presplit
    assert [row["split"] for row in rows] == ["train"] * 4000 + ["test"] * 1000
    assert {row["label"] for row in rows} == {"great", "other"}


def test_a_sample_that_is_not_the_known_file_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "training_data.pkl.compress").write_bytes(b"not the file")
    with pytest.raises(DataError, match="a pickle with an unknown digest"):
        samples.load_sample(tmp_path / "training_data.pkl.compress")


@pytest.mark.parametrize(("name", "encoding"), [("für uns.csv", "cp1252"), ("b.csv.gz", "cp1252"), ("c.tsv", "cp1251")])
def test_the_setting_in_the_error_reads_a_file_of_another_encoding(
    tmp_path: Path, reading: Read, name: str, encoding: str
) -> None:
    rows = ["Schön,a", "groß,b"] if encoding == "cp1252" else ["Привет мир,a", "Это хорошо,b"]
    data = "\n".join(["text,label", *rows]).replace(",", "\t" if name == "c.tsv" else ",").encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / name)
    setting = caught.value.fix.rpartition("-s read.encoding=")[2]
    _, found = reading(tmp_path / name, encoding=setting)
    assert [f"{row['text']},{row['label']}" for row in found] == rows


def test_importing_the_steps_is_cheap() -> None:
    heavy = {"ray", "pyarrow", "pandas", "numpy", "torch", "transformers", "tokenizers"}
    steps = ", ".join(f"raypath.components.{step}" for step in ("read", "split", "preprocess"))
    code = f"import sys, {steps}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_log_lines_hold_no_rows(tmp_path: Path, reading: Read, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    reading(write(tmp_path / "a.csv", [{"text": "SECRET", "label": "a"}, {"text": "", "label": "b"}]), nulls="drop")
    assert "SECRET" not in caplog.text
