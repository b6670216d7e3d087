"""Sealed files: any change of bytes, chunks, length or name is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raypath.components.core.errors import StoreError, UserError
from raypath.components.encryption import envelope
from raypath.components.encryption.master_keys import LocalKey
from raypath.components.encryption.vault import Vault, create_vault, vault_for

CHUNK = 1 << 10


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """Keys of a home; chunks are small."""
    monkeypatch.setattr(envelope, "CHUNK", CHUNK)
    return create_vault(tmp_path / "home", LocalKey(bytes(32), "unused"))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_round_trip_and_size(vault: Vault, size: int) -> None:
    data = os.urandom(size)
    sealed = vault.seal("a/b", data)
    assert vault.open("a/b", sealed) == data
    assert len(sealed) == envelope.sealed_size(size, "a/b")
    assert size < 16 or data not in sealed
    assert vault.seal("a/b", data) != sealed, "each file has a key of its own"


def test_every_bit_counts(vault: Vault) -> None:
    sealed = vault.seal("f", os.urandom(40))
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises((StoreError, UserError)):
            vault.open("f", bytes(altered))


def test_chunks_cannot_be_moved_or_left_out(vault: Vault) -> None:
    sealed = vault.seal("f", os.urandom(4 * CHUNK))
    whole = CHUNK + envelope.TAG
    start = len(sealed) - 4 * whole
    head, chunks = sealed[:start], [sealed[n : n + whole] for n in range(start, len(sealed), whole)]
    other = vault.seal("f", os.urandom(4 * CHUNK))
    foreign = other[start : start + whole]
    for wrong in (
        chunks[:3],
        chunks[1:],
        [chunks[1], chunks[0], *chunks[2:]],
        [*chunks, chunks[3]],
        [*chunks[:2], chunks[3]],
        [foreign, *chunks[1:]],
        [],
    ):
        with pytest.raises(StoreError, match="was altered, or is incomplete"):
            vault.open("f", head + b"".join(wrong))
    assert len(vault.open("f", head + b"".join(chunks))) == 4 * CHUNK


def test_a_file_under_another_name_is_found(vault: Vault) -> None:
    sealed = vault.seal("artifacts/a/part-0.parquet", b"rows")
    with pytest.raises(StoreError, match=r"has the contents of artifacts/a/part-0\.parquet"):
        vault.open("artifacts/b/part-0.parquet", sealed)
    renamed = sealed.replace(b"artifacts/a", b"artifacts/b")
    with pytest.raises(StoreError, match="was altered"):
        vault.open("artifacts/b/part-0.parquet", renamed)


def test_a_file_of_another_home_is_named_as_such(vault: Vault, tmp_path: Path) -> None:
    other = create_vault(tmp_path / "other", LocalKey(bytes(32), "unused"))
    with pytest.raises(UserError, match="was encrypted for another home"):
        vault.open("f", other.seal("f", b"x"))


def test_an_interrupted_write_leaves_the_old_file(vault: Vault, tmp_path: Path) -> None:
    path = vault.home / "predictions" / "a.parquet"
    path.parent.mkdir(parents=True)
    vault.write(path, b"old")
    bad = tmp_path / "sealed"
    bad.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError):
        vault.open_file("predictions/a.parquet", bad, path)
    assert vault.read(path) == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["a.parquet"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_encrypted_without_keys(tmp_path: Path) -> None:
    assert vault_for(tmp_path / "access" / "usage") is None
    assert vault_for(None) is None
