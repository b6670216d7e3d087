"""Commands of encryption at rest: one command turns it on, what it says, and what it rejects in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError, UserError
from raypath.components.encryption.vault import vault_for
from raypath.deploy.api.security.encryption import encryption_status, init_encryption, rotate_encryption
from raypath.deploy.cli import main as cli
from raypath.deploy.execution.run_history import begin
from raypath.deploy.store.audit.log import read
from raypath.deploy.store.store import Store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a prediction log in plaintext."""
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("RAYPATH_MASTER_KEY", "RAYPATH_NEW_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "home" / "predictions" / "reviews" / "2026-11-30.a.parquet"
    path.parent.mkdir(parents=True)
    path.write_text("rows")
    return tmp_path / "home"


def read_predictions(home: Path) -> bytes:
    vault = vault_for(home)
    assert vault is not None
    return vault.read(home / "predictions" / "reviews" / "2026-11-30.a.parquet")


def test_one_command_turns_it_on(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not encryption_status().encrypted
    assert cli.main(["encryption", "init"]) == 0
    [key] = (tmp_path / "config" / "raypath").iterdir()
    shown = "".join(capsys.readouterr().out.split("\n"))
    assert f"Keep a copy of {key} away from this machine" in shown
    assert key.stat().st_mode & 0o777 == 0o600
    assert cli.main(["encryption", "status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["encrypted"], found["sealed"], found["plain"]) == (True, {"predictions": 1}, {})
    assert cli.main(["encryption", "rotate", "--key", str(tmp_path / "new.key")]) == 0
    assert "no data was rewritten" in capsys.readouterr().out
    key.unlink()
    vault_for.__globals__["_opened"].cache_clear()
    assert read_predictions(home) == b"rows"
    assert [each.action for each in read(home)][:2] == ["encryption.init", "encryption.rotate"]


def test_a_key_of_the_environment_and_the_next_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_MASTER_KEY", "1a" * 32)
    first = init_encryption()
    assert (first.master, first.file) == ("environment", "")
    with pytest.raises(ParamsError, match="no new master key is given"):
        rotate_encryption()
    monkeypatch.setenv("RAYPATH_NEW_MASTER_KEY", "2b" * 32)
    assert rotate_encryption().key != first.key
    with pytest.raises(UserError, match="this home needs master key"):
        rotate_encryption()
    monkeypatch.setenv("RAYPATH_MASTER_KEY", "2b" * 32)
    with pytest.raises(ParamsError, match="is the master key of the home already"):
        rotate_encryption()


def test_what_is_rejected(home: Path) -> None:
    with pytest.raises(ParamsError, match="is in the home, whose copies would have the key"):
        init_encryption(key=home / "master.key")
    with pytest.raises(UserError, match="is not encrypted"):
        rotate_encryption()
    Store(home).open()
    begin(home, "w", "d", {}, ["read"])
    with pytest.raises(UserError, match="a run of this home is in progress"):
        init_encryption()
    assert not encryption_status().encrypted
