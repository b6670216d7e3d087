"""Commands of encryption at rest: one command turns it on, what it says, and what it rejects in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError, StoreError, UserError
from raypath.components.core.files import locked
from raypath.components.encryption.master_keys import create_key
from raypath.components.encryption.vault import create_vault, vault_for
from raypath.deploy.api.security.encryption import encryption_status, init_encryption, rotate_encryption
from raypath.deploy.cli import main as cli
from raypath.deploy.execution.run_history import begin
from raypath.deploy.store.audit.log import read
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.home_format import check_format
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


def test_one_process_at_a_time_makes_keys(home: Path) -> None:
    """Of two home keys, one would be lost with all that was encrypted under it."""
    with locked(home / "encryption" / "keys.lock"), pytest.raises(UserError, match="another process changes"):
        init_encryption()
    assert not encryption_status().encrypted
    init_encryption()
    with locked(home / "encryption" / "keys.lock"), pytest.raises(UserError, match="another process changes"):
        rotate_encryption(key=home.parent / "new.key")


def test_the_same_command_again_resumes(home: Path, tmp_path: Path) -> None:
    key = tmp_path / "master.key"
    init_encryption(key=key)
    (home / "predictions" / "reviews" / "2026-12-01.a.parquet").write_text("rows")
    assert init_encryption(key=key).sealed == {"predictions": 2}
    with pytest.raises(UserError, match="is encrypted already"):
        init_encryption(key=tmp_path / "other.key")
    assert not (tmp_path / "other.key").exists()


def test_what_a_killed_conversion_left_is_removed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A temporary file has the contents of another name, or a part of them."""
    artifact = home / "artifacts" / ("a" * 64)
    artifact.mkdir(parents=True)
    for name in ("a.parquet", "b.parquet", ".hidden.1234abcd", "hidden"):
        (artifact / name).write_text("rows")
    Store(home).open()
    vault = create_vault(home, create_key(home.parent / "master.key"))
    name = f"artifacts/{artifact.name}/a.parquet"
    left = [artifact / ".a.parquet.1234abcd", artifact / ".b.parquet.1234abcd"]
    left.append(home / "predictions" / "reviews" / ".2026-11-30.a.parquet.1234abcd")
    vault.seal_file(name, artifact / "a.parquet", left[0])
    left[1].write_bytes(b"")
    left[2].write_bytes(left[0].read_bytes()[:100])
    with pytest.raises(StoreError, match="is no encrypted file"):
        vault.read(artifact / "a.parquet", name)
    assert encryption_status().plain == {"artifacts": 4, "predictions": 1}
    assert init_encryption().plain == {}
    assert [path for path in left if path.exists()] == []
    assert vault.read(artifact / ".hidden.1234abcd") == b"rows", "a file of its author"


def test_a_command_line_with_open_quotes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["encryption", "init", "--wrap", "cat", "--unwrap", "'cat"]) == 2
    assert "is no command line (No closing quotation)" in capsys.readouterr().err


def test_corrupt_keys_are_found_before_anything_starts(home: Path) -> None:
    init_encryption()
    (home / "encryption" / "vault.json").write_text("{}")
    with pytest.raises(UserError, match=r"vault\.json is corrupt"):
        check_format(home)


def test_a_home_that_has_lost_its_keys_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would go on in plaintext, and a new key would not open what there is."""
    init_encryption()
    file = home / "encryption" / "vault.json"
    kept = file.read_bytes()
    file.unlink()
    for arguments in (["status"], ["init"]):
        assert cli.main(["encryption", *arguments]) == 2
        assert "encryption/vault.json is missing" in capsys.readouterr().err
    with pytest.raises(UserError, match="is missing, without which nothing can be read"):
        open_store(home, "")
    assert not file.exists()
    file.write_bytes(kept)
    file.chmod(0o600)
    assert read_predictions(home) == b"rows"


def test_an_encrypted_home_from_before_the_mark_gets_it(home: Path) -> None:
    init_encryption()
    mark = home / "raypath.json"
    mark.write_text('{"format": 2}')
    open_store(home, "").close()
    assert json.loads(mark.read_text()) == {"format": 2, "encrypted": True}


def test_nothing_to_decrypt(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_encryption()
    assert cli.main(["encryption", "decrypt", str(home / "audit"), "-o", str(tmp_path / "out")]) == 2
    assert "has no encrypted files" in capsys.readouterr().err


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
