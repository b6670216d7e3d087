"""Folders in memory: private, shared by processes, gone with the last one, also when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raypath.components.core.errors import StoreError, UserError
from raypath.components.encryption.master_keys import create_key
from raypath.components.encryption.vault import create_vault, vault_for
from raypath.components.encryption.working_folder import VARIABLE, base_folder, check_memory, clean, working_folder

HOLD = """
import sys, time
from pathlib import Path
from raypath.components.encryption.working_folder import working_folder
path = working_folder(Path(sys.argv[1]), "run").acquire()
(path / "rows").write_text("MARKER")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    create_vault(tmp_path / "home", create_key(tmp_path / "master.key"))
    return tmp_path / "home"


def test_it_is_private_and_goes_with_its_last_use(home: Path) -> None:
    before, folder = tempfile.gettempdir(), working_folder(home, "run")
    path = folder.acquire()
    assert folder.acquire() == path
    assert [each.stat().st_mode & 0o777 for each in (path, path.parent)] == [0o700, 0o700]
    assert tempfile.gettempdir() == str(path / "tmp")
    vault = vault_for(path / "artifacts" / "x")
    assert vault is not None
    assert vault.home == home
    folder.release()
    assert path.is_dir()
    folder.release()
    assert not path.parent.exists()
    assert tempfile.gettempdir() == before


def test_a_killed_process_leaves_nothing_to_the_next(home: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    rows = base_folder(home) / "run" / "rows"
    clean(home)
    assert rows.read_text() == "MARKER", "another process uses it"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert rows.exists()
    path = working_folder(home, "run").acquire()
    assert [each.name for each in path.iterdir()] == ["tmp"]
    working_folder(home, "run").release()
    assert not base_folder(home).exists()


def test_a_disk_is_not_memory(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/")
    with pytest.raises(UserError, match=f"needs a file system in memory .* / is none; set \\${VARIABLE}"):
        working_folder(home, "other").acquire()


def test_a_folder_of_somebody_else_is_not_used(home: Path) -> None:
    base = base_folder(home)
    base.mkdir(mode=0o755)
    base.chmod(0o755)
    try:
        with pytest.raises(UserError, match="others may read it"):
            working_folder(home, "mine").acquire()
    finally:
        os.rmdir(base)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    check_memory(tmp_path, 1)
    with pytest.raises(StoreError, match="needs 1073741824 MiB of memory for an input"):
        check_memory(tmp_path, 1 << 50)
