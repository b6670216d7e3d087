"""Files and locks that a kill leaves whole."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.files import (
    files_digest,
    is_disk_full,
    link,
    locked,
    new_file,
    new_folder,
    write_atomically,
)

HOLDS = """
import sys, time
from pathlib import Path
from raypath.components.core.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_had_by_one_shared_by_readers_and_falls_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lock"
    now = fcntl.LOCK_EX | fcntl.LOCK_NB
    command = [sys.executable, "-c", HOLDS, str(file)]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with locked(file, now) as held:
            assert not held
        with locked(file, fcntl.LOCK_SH | fcntl.LOCK_NB) as held:
            assert not held
        other.send_signal(signal.SIGKILL)
    with locked(file, fcntl.LOCK_SH) as first, locked(file, fcntl.LOCK_SH) as second, locked(file, now) as alone:
        assert (first, second, alone) == (True, True, False)
    with pytest.raises(BlockingIOError), locked(file, now):
        raise BlockingIOError  # what goes wrong inside comes out as itself
    with locked(file, now) as held:
        assert held
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files in the order they are flushed, and `moved` for each rename."""
    seen: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def flush(handle: int) -> None:
        seen.append(Path(f"/proc/self/fd/{handle}").resolve().name)
        fsync(handle)

    def moving(move: Any) -> Any:
        return lambda old, new: (seen.append("moved"), move(old, new))

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", moving(rename))
    monkeypatch.setattr(os, "replace", moving(replace))
    return seen


def test_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, disk: list[str]) -> None:
    with new_folder(tmp_path / "deep" / "model") as folder:
        (folder / "a").write_text("a")
        (folder / "b").write_text("b")
        assert not (tmp_path / "deep" / "model").exists()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(disk[:2]) == ["a", "b"]
    assert disk[2:] == ["moved"]
    (tmp_path / "deep" / ".model").mkdir()
    (tmp_path / "deep" / ".model" / "crashed").write_text("half")
    with new_folder(tmp_path / "deep" / "model") as folder:
        (folder / "c").write_text("c")
    assert [path.name for path in (tmp_path / "deep" / "model").iterdir()] == ["c"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_a_folder_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    with new_folder(tmp_path / "model") as folder:
        (folder / "a").write_text("old")

    def fail() -> None:
        with new_folder(tmp_path / "model") as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "a").read_text() == "old"


def test_an_error_in_a_folder_that_is_gone_comes_out_as_itself(tmp_path: Path) -> None:
    def folder_gone() -> None:
        with new_folder(tmp_path / "model") as folder:
            folder.rmdir()
            raise KeyError

    def file_gone() -> None:
        with new_file(tmp_path / "f", tmp_path / "g"):
            (tmp_path / "g").unlink()
            raise KeyError

    for call in (folder_gone, file_gone):
        with pytest.raises(KeyError):
            call()
    assert not list(tmp_path.iterdir())


def test_a_link_is_the_file_itself_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a")
    link(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a").samefile(tmp_path / "b")

    def fail(*_: Any) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", fail)
    link(str(tmp_path / "a"), str(tmp_path / "c"))
    assert not (tmp_path / "a").samefile(tmp_path / "c")
    assert (tmp_path / "c").read_text() == "a"


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, disk: list[str]) -> None:
    write_atomically(tmp_path / "f", "old")
    assert disk[0].startswith(".f.")
    assert disk[1:] == ["moved"]
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600

    def fail() -> None:
        with new_file(tmp_path / "f") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_a_digest_of_files_covers_names_and_contents_in_any_order(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    a, b, c = (tmp_path / name for name in "abc")
    assert files_digest([a, b]) == files_digest([b, a]) != files_digest([a, c])
    before = files_digest([a, b])
    b.write_text("a")
    assert files_digest([a, b]) != before


def test_a_full_disk_is_known_by_number_and_by_words() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, "x"))
    assert is_disk_full(OSError(errno.EDQUOT, "x"))
    assert is_disk_full(RuntimeError(f"writing failed: {os.strerror(errno.ENOSPC)}"))
    assert not is_disk_full(OSError(errno.EIO, "x"))
