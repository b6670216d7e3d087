"""Master keys: where they are found, who may read them, and what a wrong or missing one says."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError, UserError
from raypath.components.encryption.master_keys import (
    VARIABLE,
    LocalKey,
    command_key,
    create_key,
    environment_key,
    find_key,
    read_key,
)
from raypath.components.encryption.vault import create_vault, read_settings, rotate_master, vault_for

KMS = """
import os, sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
key, data = AESGCM(bytes.fromhex(open(sys.argv[2]).read())), sys.stdin.buffer.read()
nonce = os.urandom(12)
out = nonce + key.encrypt(nonce, data, b"") if sys.argv[1] == "wrap" else key.decrypt(data[:12], data[12:], b"")
sys.stdout.buffer.write(out)
"""
"""A key management service that keeps its key to itself."""


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_key_file_is_private_and_not_replaced(tmp_path: Path) -> None:
    made = create_key(tmp_path / "keys" / "master.key")
    file = tmp_path / "keys" / "master.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key(file) == made
    with pytest.raises(ParamsError, match="cannot create"):
        create_key(file)
    file.chmod(0o640)
    with pytest.raises(UserError, match=r"others may read the master key .*; chmod 600"):
        read_key(file)
    file.chmod(0o600)
    file.write_text("short")
    with pytest.raises(UserError, match="is no master key"):
        read_key(file)
    assert made.secret.hex() not in repr(made)


def test_the_wrong_and_the_missing_key_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, file = tmp_path / "home", tmp_path / "master.key"
    create_vault(home, create_key(file))
    file.rename(tmp_path / "moved.key")
    with pytest.raises(UserError, match=r"the master key .* cannot be read \(No such file"):
        vault_for(home)
    create_key(file)
    with pytest.raises(UserError, match="this home needs master key"):
        vault_for(home)
    monkeypatch.setenv(VARIABLE, read_key(tmp_path / "moved.key").secret.hex())
    assert vault_for(home) is not None, "a key in the environment serves where the file is not"


def test_a_key_of_the_environment_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "ab" * 32)
    key = environment_key()
    assert key is not None
    create_vault(tmp_path, key)
    assert vault_for(tmp_path) is not None
    assert "abab" not in (tmp_path / "encryption" / "vault.json").read_text()
    vault_for.__globals__["_opened"].cache_clear()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UserError, match=f"the environment has no master key; set \\${VARIABLE}"):
        vault_for(tmp_path)


def test_a_service_behind_commands(tmp_path: Path) -> None:
    (tmp_path / "kms.py").write_text(KMS)
    create_key(tmp_path / "kms.key")
    run = shlex.join([sys.executable, str(tmp_path / "kms.py")])
    key = command_key(f"{run} wrap {tmp_path}/kms.key", f"{run} unwrap {tmp_path}/kms.key")
    made = create_vault(tmp_path / "home", key)
    vault_for.__globals__["_opened"].cache_clear()
    found = vault_for(tmp_path / "home")
    assert found is not None
    assert found.open("x", made.seal("x", b"1")) == b"1"
    assert find_key(read_settings(tmp_path / "home")) == key
    (tmp_path / "kms.key").unlink()
    vault_for.__globals__["_opened"].cache_clear()
    with pytest.raises(UserError, match="of the master key failed"):
        vault_for(tmp_path / "home")


def test_commands_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="returns another key"):
        command_key("cat", "head -c 32")
    with pytest.raises(UserError, match=r"failed \(No such file"):
        command_key("no-such-command", "cat")
    with pytest.raises(ParamsError, match="one of --wrap and --unwrap is missing"):
        command_key("cat", "")


def test_rotation_wraps_one_key_and_locks_the_old_one_out(tmp_path: Path) -> None:
    old, new = create_key(tmp_path / "old.key"), create_key(tmp_path / "new.key")
    vault = create_vault(tmp_path / "home", old)
    sealed = vault.seal("f", b"data")
    rotate_master(vault, new)
    found = vault_for(tmp_path / "home")
    assert found is not None
    assert found.open("f", sealed) == b"data"
    assert read_settings(tmp_path / "home")["id"] == new.id
    new_file = tmp_path / "new.key"
    new_file.unlink()
    (tmp_path / "old.key").rename(new_file)
    vault_for.__globals__["_opened"].cache_clear()
    with pytest.raises(UserError, match=f"needs master key {new.id}"):
        vault_for(tmp_path / "home")


def test_keys_that_others_may_write_are_not_used(tmp_path: Path) -> None:
    create_vault(tmp_path, LocalKey(bytes(32)))
    (tmp_path / "encryption" / "vault.json").chmod(0o666)
    with pytest.raises(UserError, match="others may write"):
        vault_for(tmp_path)
    (tmp_path / "encryption" / "vault.json").chmod(0o600)
    (tmp_path / "encryption" / "vault.json").write_text("{}")
    with pytest.raises(UserError, match="is corrupt"):
        vault_for(tmp_path)
