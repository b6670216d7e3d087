"""Keys: only hashes kept, private files, ends seen by a running store, many writers."""

from __future__ import annotations

import hmac
import multiprocessing
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError, PlatformError, UserError
from raypath.components.serving.metering import api_keys as keys
from raypath.components.serving.metering.api_keys import KeyStore, local_key
from raypath.components.serving.metering.holder import AccessError

NOW = time.time()


def _refused(store: KeyStore, text: str, scope: str = "predict", now: float = NOW) -> AccessError:
    with pytest.raises(AccessError) as caught:
        store.check(text, scope, now)
    return caught.value


def test_only_a_hash_is_kept_and_all_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "access"
    key, text = KeyStore(folder).create("anna")
    local = local_key(folder)
    secret = text.split("_", 2)[2]
    assert len(secret) == 43  # 256 bits, base64url
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert secret not in file.read_text()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    pepper = bytes.fromhex((folder / "pepper").read_text())
    assert len(pepper) == 32
    assert key.digest == hmac.digest(pepper, secret.encode(), "sha256").hex()
    assert key.digest not in repr(key)
    assert local.read_text().split("_", 2)[2] not in (folder / "keys.json").read_text()


def test_a_key_is_known_by_its_text_alone(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, text = store.create("anna")
    assert KeyStore(tmp_path).check(text, "predict", NOW) == key
    other = "A" if text[-1] != "A" else "B"
    for wrong in (
        "",
        "rp",
        "rp__",
        text[:-1],
        text + "x",
        text[:-1] + other,
        text.upper(),
        f"rp_{'0' * 12}_x",
        "é" * 999,
    ):
        assert _refused(KeyStore(tmp_path), wrong).status == 401


def test_an_unknown_id_costs_a_comparison_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KeyStore(tmp_path)
    key, text = store.create("anna")
    compared = []
    plain = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or plain(a, b))
    store.check(text, "predict", NOW)
    for wrong in (f"rp_{key.id}_wrong", "rp_unknown_wrong", "no key at all", ""):
        assert _refused(store, wrong).reason == "this key is not known"
    assert compared == [(64, 64)] * 5


def test_scopes_expiry_and_revocation(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, text = store.create("anna", ["embed"], expires=datetime.fromtimestamp(NOW, UTC) + timedelta(days=1))
    assert key.expires is not None
    store.check(text, "embed", NOW + 86_399)
    assert _refused(store, text).status == 403
    assert _refused(store, text, "embed", key.expires.timestamp()).reason == "this key is expired"
    guessed = _refused(store, f"rp_{key.id}_guessed", "embed", NOW + 86_401)
    assert (guessed.reason, guessed.key) == ("this key is not known", None), "only its holder learns that it exists"
    assert store.revoke("anna").revoked
    store._checked_at = float("-inf")
    assert _refused(store, text, "embed").reason == "this key is revoked"
    assert _refused(store, text, "embed").status == 401
    assert _refused(store, f"rp_{key.id}_guessed").reason == "this key is not known"
    with pytest.raises(UserError, match="no key anna"):
        store.revoke("anna")
    again, _ = store.create("anna")
    assert store.revoke(again.id).id == again.id
    assert [key.status(NOW) for key in store.list()] == ["revoked", "revoked"]


def test_names_are_unique_and_plain(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.create("Anna Müller")
    for name in ("", "=1+1", "a\nb", "x" * 65):
        with pytest.raises(ParamsError):
            store.create(name)
    with pytest.raises(ParamsError) as caught:
        store.create("Anna Müller")
    assert (caught.value.what, caught.value.fix) == (
        "there is a key named Anna Müller",
        "choose another name, or revoke that one",
    )
    with pytest.raises(ParamsError, match="requests_per_minute"):
        store.create("bert", requests_per_minute=-1)
    assert len(store.list()) == 1
    store.revoke("Anna Müller")
    store.create("Anna Müller")
    assert len(store.list()) == 2


def test_the_file_is_read_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KeyStore(tmp_path)
    _, text = store.create("anna")
    clock = [100.0]
    looks = []
    stamp = keys.file_stamp
    monkeypatch.setattr(keys.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(keys, "file_stamp", lambda file: looks.append(file) or stamp(file))
    for _ in range(50):
        store.check(text, "predict", NOW)
    assert len(looks) == 1
    KeyStore(tmp_path).revoke("anna")
    store.check(text, "predict", NOW)
    clock[0] += 1.0
    assert _refused(store, text).status == 401
    assert len(looks) == 2


def test_what_cannot_be_read_leaves_what_was_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = KeyStore(tmp_path)
    _, text = store.create("anna")
    store.check(text, "predict", NOW)
    (tmp_path / "keys.json").write_text("{")
    store._checked_at = float("-inf")
    store.check(text, "predict", NOW)
    assert caplog.messages[0].startswith("keys cannot be read, the known ones stay valid: ")
    assert caplog.messages[0].endswith("; restore a copy, or remove it and create new keys")
    assert text not in caplog.text
    with pytest.raises(PlatformError, match="corrupt"):
        store.list()


def test_a_lost_pepper_is_not_replaced(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    _, text = store.create("anna")
    (tmp_path / "pepper").unlink()
    with pytest.raises(PlatformError, match="pepper is missing"):
        store.create("bert")
    assert _refused(KeyStore(tmp_path), text).status == 401


def test_the_local_key_is_made_once(tmp_path: Path) -> None:
    file = local_key(tmp_path)
    text = file.read_text()
    assert local_key(tmp_path).read_text() == text
    assert KeyStore(tmp_path).check(text, "admin", NOW).name == "local"
    file.unlink()
    assert local_key(tmp_path).read_text() != text
    assert _refused(KeyStore(tmp_path), text).reason == "this key is revoked"


def _create(folder: Path, who: int) -> None:
    for n in range(5):
        KeyStore(folder).create(f"p{who}-{n}")


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_create, args=(tmp_path, who)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len({key.name for key in KeyStore(tmp_path).list()}) == 15


def test_a_client_named_local_keeps_its_key(tmp_path: Path) -> None:
    """It was made by an earlier Raypath; the key of this machine, which is made anew, revoked it."""
    store = KeyStore(tmp_path)
    with store._locked():
        client, text = store._add("local", ("predict",), {"requests_per_minute": 60})
    first = local_key(tmp_path).read_text()
    (tmp_path / "local.key").unlink()
    second = local_key(tmp_path).read_text()
    assert KeyStore(tmp_path).check(text, "predict", time.time()).id == client.id
    assert KeyStore(tmp_path).check(second, "admin", time.time()).name == "local"
    with pytest.raises(AccessError, match="revoked"):
        KeyStore(tmp_path).check(first, "predict", time.time())
    for name in ("local", "Local", "LOCAL "):
        with pytest.raises(ParamsError, match="choose another name"):
            store.create(name)
