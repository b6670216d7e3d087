"""Rows of subjects in the prediction log: readable with the subject's key, and never again once it is destroyed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.errors import StoreError, UserError
from raypath.components.encryption.master_keys import create_key
from raypath.components.encryption.parquet import open_parquet
from raypath.components.encryption.subjects import destroy_key, ensure_key, has_key, open_rows, subject_name
from raypath.components.encryption.vault import Vault, create_vault
from raypath.components.serving.model_versions import LoadedModel
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.replica.loader import open_version
from raypath.deploy.api.security.encryption import decrypt_files
from raypath.deploy.cli import main as cli
from raypath.deploy.store.audit.log import read
from raypath.deploy.store.backup.sources import source_files
from raypath.deploy.store.store import Store
from tests.tiny_classifier import tiny_classifier

TEXTS = {"anna": "tea for Anna", "ben": "Ben's broken cup", "": "nobody's text"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return open_version(Path(tiny_classifier(tmp_path_factory.mktemp("m") / "m").uri), "reviews", 1, threads=1)


@pytest.fixture
def vault(tmp_path: Path, model: LoadedModel) -> Vault:
    """An encrypted home with a prediction log of three requests."""
    Store(tmp_path / "home").open()
    vault = create_vault(tmp_path / "home", create_key(tmp_path / "master.key"))
    log = PredictionLog(tmp_path / "home" / "predictions" / "reviews", "r", texts=True)
    for subject, text in TEXTS.items():
        decoded = model.task.decode(model.engine.record(model.tokenizer.encode([text])))
        log.add(model, decoded, [text], id=subject or "none", subject=subject)
    assert log.close()
    return vault


def texts(vault: Vault, home: Path | None = None) -> dict[str, str | None]:
    """Return the texts of a log by request, as somebody with the keys of `vault` reads them."""
    [path] = ((home or vault.home) / "predictions" / "reviews").glob("*.parquet")
    raw = pq.read_table(
        pa.BufferReader(vault.read(path, vault.identity(vault.home / path.relative_to(home or vault.home))))
    )
    rows, _ = open_rows(vault, raw)
    return dict(zip(rows["request_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def test_rows_are_under_the_key_of_their_subject(vault: Vault) -> None:
    [path] = (vault.home / "predictions" / "reviews").glob("*.parquet")
    assert not any(text.encode() in path.read_bytes() for text in TEXTS.values())
    opened = open_parquet(path).read().to_pylist()
    assert [row["text"] for row in opened] == [None, None, "nobody's text"], "the key of the home alone is not enough"
    assert [row["predicted"] is None and row["scores"] is None for row in opened] == [True, True, False]
    assert "anna" not in {row["subject"] for row in opened}
    assert texts(vault) == {subject or "none": text for subject, text in TEXTS.items()}


def test_a_destroyed_key_makes_rows_unreadable_in_copies_too(vault: Vault, tmp_path: Path) -> None:
    copied = {found.name for found in source_files(vault.home, tmp_path)}
    assert "encryption/vault.json" in copied
    assert not [name for name in copied if "subjects" in name], "a backup has no keys of subjects"
    copy = tmp_path / "copy"
    shutil.copytree(vault.home / "predictions", copy / "predictions")
    assert destroy_key(vault, "anna")
    assert not has_key(vault, "anna")
    assert not destroy_key(vault, "anna")
    wanted = {"anna": None, "ben": TEXTS["ben"], "none": TEXTS[""]}
    assert texts(vault) == wanted
    assert texts(vault, copy) == wanted
    ensure_key(vault, "anna")
    assert texts(vault) == wanted, "the next key of the same subject opens nothing of before"


def test_forget_destroys_the_key_and_records_it(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(vault.home))
    assert cli.main(["forget", "anna", "--dry-run"]) == 0
    assert has_key(vault, "anna")
    assert cli.main(["forget", "anna", "--yes"]) == 0
    assert "is destroyed, also for copies and backups" in capsys.readouterr().out
    assert not has_key(vault, "anna")
    assert cli.main(["encryption", "shred", "ben", "--yes"]) == 0
    records = [(each.action, each.detail.get("key_destroyed")) for each in read(vault.home)]
    assert records[-2:] == [("subject.forget", True), ("encryption.shred", True)]
    assert decrypt_files(vault.home / "predictions", tmp_path / "out", home=vault.home) == 1
    [path] = (tmp_path / "out").rglob("*.parquet")
    assert pq.read_table(path)["text"].to_pylist() == [None, None, "nobody's text"]


def test_the_name_of_a_key_is_no_path(vault: Vault) -> None:
    table = pa.table({"text": [None], "subject": ["../vault"], "sealed": [b"x" * 40]})
    with pytest.raises(StoreError, match="is no name of a subject's key"):
        open_rows(vault, table)


def test_usage_and_clear_homes_are_as_before(model: LoadedModel, tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "p", "r", texts=True)
    decoded = model.task.decode(np.asarray(model.engine.record(model.tokenizer.encode(["x"]))))
    log.add(model, decoded, ["x"], subject="anna")
    log.close()
    [path] = (tmp_path / "p").glob("*.parquet")
    assert "subject" not in pq.read_schema(path).names
    with pytest.raises(UserError, match="is not encrypted"):
        decrypt_files(tmp_path / "p", tmp_path / "out", home=tmp_path)


def test_a_destruction_that_was_interrupted_counts(vault: Vault) -> None:
    """The key is overwritten first, then its file is removed."""
    path = vault.folder / "subjects" / f"{subject_name(vault, 'anna')}.key"
    path.write_bytes(bytes(path.stat().st_size))
    assert texts(vault) == {"anna": None, "ben": TEXTS["ben"], "none": TEXTS[""]}
    assert ensure_key(vault, "anna") == ensure_key(vault, "anna"), "a later request has a new key"
    assert texts(vault)["anna"] is None
    path.write_bytes(bytes(path.stat().st_size))
    assert destroy_key(vault, "anna")
    assert not path.exists()
