"""An encrypted store as an auditor looks at it: no plaintext in any file, nothing left in memory, changes are found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import StoreError, UserError
from raypath.components.encryption.master_keys import create_key
from raypath.components.encryption.vault import create_vault, rotate_master, vault_for
from raypath.components.encryption.working_folder import base_folder
from raypath.deploy.execution.step import Outcome, StepSpec, run_step
from raypath.deploy.store.encryption.convert import count_files, encrypt
from raypath.deploy.store.encryption.encrypted_store import EncryptedStore
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.lineage import steps_behind
from raypath.deploy.store.store import Record, Store
from tests.deploy.store.encryption.marking import MARKER

KEY = "a" * 64
RUN = """
import json, sys
from raypath.deploy.execution.step import StepSpec, run_step
print(run_step(StepSpec(**json.loads(sys.argv[1]))).error, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An encrypted home."""
    home = tmp_path / "home"
    Store(home).open()
    create_vault(home, create_key(tmp_path / "master.key"))
    return home


@pytest.fixture
def store(home: Path) -> Iterator[EncryptedStore]:
    found = open_store(home, "")
    assert isinstance(found, EncryptedStore)
    yield found
    found.close()


def spec(home: Path, key: str = KEY, wait: float = 0.0, store: str = "") -> StepSpec:
    component = "tests.deploy.store.encryption.marking:mark"
    given = [{"wait": wait}]
    return StepSpec(
        home=str(home), run="r", step="mark", component=component, key=key, key_inputs={}, arguments=given, store=store
    )


def made(outcome: Outcome) -> Dataset:
    assert outcome.artifact is not None, outcome
    return Dataset.model_validate(outcome.artifact, strict=False)


def plaintext(*folders: Path) -> list[Path]:
    """Return the files that contain the marker."""
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if MARKER.encode() in path.read_bytes()]


def test_a_step_leaves_no_plaintext(home: Path, tmp_path: Path) -> None:
    artifact = made(run_step(spec(home)))
    assert plaintext(tmp_path) == []
    assert not base_folder(home).exists()
    store = open_store(home, "")
    record = store.record(KEY)
    assert record is not None
    assert record.artifact["digest"] == artifact.digest
    here = Path(store.local(artifact).uri)
    assert here.is_relative_to(base_folder(home))
    assert (here / "rows.txt").read_text() == f"{MARKER}\n" * 3
    store.close()
    assert not base_folder(home).exists()


def test_the_digest_is_that_of_the_plaintext(home: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    Store(plain).open()
    assert made(run_step(spec(home))).digest == made(run_step(spec(plain))).digest
    assert plaintext(plain) != [], "the search finds what it looks for"


def test_a_killed_step_resumes_from_its_encrypted_scratch_folder(home: Path, tmp_path: Path) -> None:
    import json

    process = subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(asdict(spec(home, wait=60.0)))],
        stdout=subprocess.PIPE,
        env=os.environ | {"MARK_READY": str(home)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert plaintext(tmp_path) == []
    assert plaintext(base_folder(home)) != [], "the plaintext of a killed process is in memory until the next start"
    artifact = made(run_step(spec(home, wait=60.0)))
    assert not base_folder(home).exists()
    store = open_store(home, "")
    assert (Path(store.local(artifact).uri) / "rows.txt").read_text() == f"{MARKER}\n" * 6, "the second attempt"
    store.close()
    assert plaintext(tmp_path) == []
    assert not list((home / "scratch").rglob("*.json")), "the scratch folder goes with the commit"


@pytest.mark.parametrize("change", ["bit", "length", "swap", "plaintext"])
def test_a_changed_file_is_found_and_its_step_runs_again(home: Path, store: EncryptedStore, change: str) -> None:
    artifact = made(run_step(spec(home)))
    store.close()
    folder = next((home / "artifacts").iterdir())
    path, other = folder / "rows.txt", folder / "empty"
    data = path.read_bytes()
    changed = {
        "bit": data[:-1] + bytes([data[-1] ^ 1]),
        "length": data[:-1],
        "swap": other.read_bytes(),
        "plaintext": b"x" * len(data),
    }[change]
    path.write_bytes(changed)
    store.open()
    with pytest.raises(StoreError, match=r"was altered, or is incomplete|has the contents of|is no encrypted file"):
        store.local(artifact)
    assert store.record(KEY) is None
    assert made(run_step(spec(home))).digest == artifact.digest
    assert Path(store.local(artifact).uri, "rows.txt").read_text() == f"{MARKER}\n" * 3


def test_rotation_rewrites_no_data(home: Path, tmp_path: Path) -> None:
    artifact = made(run_step(spec(home)))
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in _data(home)}
    vault = vault_for(home)
    assert vault is not None
    rotate_master(vault, create_key(tmp_path / "new.key"))
    (tmp_path / "master.key").unlink()
    vault_for.__globals__["_opened"].cache_clear()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in _data(home)} == files
    store = open_store(home, "")
    assert Path(store.local(artifact).uri, "rows.txt").is_file()
    store.close()


def test_a_home_without_its_key_says_so(home: Path, tmp_path: Path) -> None:
    (tmp_path / "master.key").unlink()
    vault_for.__globals__["_opened"].cache_clear()
    outcome = run_step(spec(home))
    assert (outcome.error, outcome.artifact) == ("UserError", None)
    assert outcome.what.endswith("cannot be read (No such file or directory)")


def test_a_shared_folder_is_encrypted_and_closed_to_other_homes(home: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    artifact = made(run_step(spec(home, store=str(shared))))
    assert plaintext(tmp_path) == []
    assert not (home / "records").is_dir() or not list((home / "records").iterdir())
    other = open_store(tmp_path / "other", str(shared))
    with pytest.raises(UserError, match="is encrypted, and this home has no key; copy the folder encryption"):
        other.record(KEY)
    (tmp_path / "other" / "encryption").mkdir()
    (tmp_path / "other" / "encryption" / "vault.json").write_bytes((home / "encryption" / "vault.json").read_bytes())
    (tmp_path / "other" / "encryption" / "vault.json").chmod(0o600)
    second = open_store(tmp_path / "other", str(shared))
    record = second.record(KEY)
    assert record is not None
    assert record.artifact["digest"] == artifact.digest
    assert Path(second.local(Dataset.model_validate(record.artifact, strict=False)).uri, "rows.txt").is_file()
    second.close()


def test_a_home_is_encrypted_after_the_fact(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store(home).open()
    artifact = made(run_step(spec(home)))
    made(run_step(spec(home, key="b" * 64)))
    checkpoint = home / "scratch" / ("c" * 64) / "model.bin"
    predictions = home / "predictions" / "reviews" / "2026-11-30.a.parquet"
    # What an interruption between both leaves: a checkpoint that was moved; and what a killed step leaves.
    moved = home / "attempts" / ("convert-" + "d" * 64) / "model.bin"
    for path in (checkpoint, predictions, moved, home / "attempts" / "mark-1" / "rows.txt"):
        path.parent.mkdir(parents=True)
        path.write_text(MARKER)
    vault = create_vault(home, create_key(tmp_path / "master.key"))

    def interrupt(size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encrypt(home, home, vault, interrupt)
    assert plaintext(home) != []
    store = open_store(home, "")
    with pytest.raises(StoreError, match="is in plaintext; `raypath encryption init` encrypts it"):
        store.record(KEY)
    store.close()
    encrypt(home, home, vault)
    assert plaintext(home) == []
    assert not count_files(home, home)[1]
    assert encrypt(home, home, vault) == 0
    assert vault.read(predictions) == MARKER.encode()
    store = open_store(home, "")
    record = store.record(KEY)
    assert record is not None
    assert record.artifact["digest"] == artifact.digest
    assert Path(store.local(artifact).uri, "rows.txt").read_text() == f"{MARKER}\n" * 3
    for key in ("c" * 64, "d" * 64):
        with store.lock(key):
            assert (store.scratch(key) / "model.bin").read_text() == MARKER
    store.close()


def test_objects_are_encrypted_before_they_leave(home: Path, tmp_path: Path, address: str) -> None:
    from raypath.components.data.sources.bucket import Bucket

    artifact = made(run_step(spec(home, store=address)))
    bucket = Bucket(address)
    names = [name for folder in ("artifacts", "records", "manifests") for name in bucket.names(folder)]
    assert len(names) == 4
    for name in names:
        found = bucket.get(name)
        assert found is not None
        assert MARKER.encode() not in found[0]
    assert plaintext(tmp_path) == []
    store = open_store(home, address)
    assert Path(store.local(artifact).uri, "rows.txt").read_text() == f"{MARKER}\n" * 3
    store.close()
    with pytest.raises(UserError, match="is encrypted, and this home has no key"):
        open_store(tmp_path / "other", address).record(KEY)


def _data(home: Path) -> list[Path]:
    return [path for name in ("artifacts", "records", "manifests") for path in (home / name).rglob("*.*")]


def test_rows_of_a_subject_are_found_and_removed(home: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from raypath.deploy.store.forgetting.removal import affected, read_records, remove
    from raypath.deploy.store.forgetting.search import find_rows

    artifact = made(run_step(spec(home)))
    plain = home / "rows.parquet"
    pq.write_table(pa.table({"id": ["u1", "u2", "u1"]}), plain)
    vault = vault_for(home)
    assert vault is not None
    name = Path(artifact.uri).name
    vault.seal_file(f"artifacts/{name}/rows.parquet", plain, home / "artifacts" / name / "rows.parquet")
    plain.unlink()
    store = open_store(home, "")
    assert [(each.artifact, each.rows) for each in find_rows(store, "u1")] == [(name, 2)]
    assert find_rows(store, "u3") == []
    assert [each.step for each in affected(read_records(store), {name})] == ["mark"]
    assert remove(store, affected(read_records(store), {name}), find_rows(store, "u1")) == 1
    assert store.record(KEY) is None
    assert list((home / "artifacts").iterdir()) == list((home / "manifests").iterdir()) == []
    store.close()
    assert made(run_step(spec(home))).digest == artifact.digest, "the same contents are stored anew"


def test_retention_deletes_encrypted_artifacts(home: Path) -> None:
    import time

    from raypath.deploy.store.retention import apply, write_days

    made(run_step(spec(home)))
    write_days(home, {"artifacts": 10})
    store = open_store(home, "")
    assert [each.count for each in apply(store)] == [0]
    assert [each.count for each in apply(store, now=time.time() + 11 * 86_400)] == [3], "record, digests, files"
    assert store.record(KEY) is None
    assert list((home / "artifacts").iterdir()) == []
    store.close()


def test_other_launchers_are_rejected(home: Path) -> None:
    from raypath.deploy.launchers import prepare

    with pytest.raises(UserError, match="is encrypted at rest, and --on kubeflow would store plaintext"):
        prepare("kubeflow", "text_classification", {}, home)


def test_cards_find_the_steps_behind_a_version(home: Path, store: EncryptedStore) -> None:
    """Their records are encrypted as well."""
    made(run_step(spec(home)))
    file = home / "records" / f"{KEY}.json"
    found = Record.model_validate_json(store.read_stored(file))
    released = {**found.artifact, "name": "reviews", "version": 1, "alias": "champion"}
    text = found.model_copy(update={"artifact": released}).model_dump_json()
    store.vault.write(file, text.encode())
    assert [each.step for each in steps_behind(store, "reviews", 1).values()] == ["mark"]
