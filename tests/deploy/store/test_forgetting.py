"""Forgetting a subject: its rows are found by type, and what was made of them is removed, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.errors import PlatformError
from raypath.deploy.cli import main as cli
from raypath.deploy.store.audit.log import read
from raypath.deploy.store.audit.records import folder_of
from raypath.deploy.store.forgetting import removal
from raypath.deploy.store.forgetting.removal import affected, read_records, remove
from raypath.deploy.store.forgetting.search import FoundRows, find_rows
from raypath.deploy.store.retention import delete
from raypath.deploy.store.store import Store

READ, SPLIT, MODEL, OTHER = (character * 64 for character in "abcd")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two data sets: one with the subject, split and trained on, and one without it."""
    store = Store(tmp_path / "home").open()
    table = pa.table({"text": ["a", "b", "c"], "id": ["u1", "u2", "u1"], "group": pa.array([7, 8, 9])})
    write(store, READ, "part-0.parquet", table)
    write(store, SPLIT, "train/part-0.parquet", table.slice(0, 1))
    write(store, SPLIT, "test/part-0.parquet", table.slice(1, 1))
    write(store, OTHER, "part-0.parquet", table.slice(1, 1))
    (store.root / "artifacts" / MODEL).mkdir()
    (store.root / "artifacts" / MODEL / "model.safetensors").write_bytes(b"weights")
    record(store, "read", READ, {})
    splits = {name: {"uri": f"artifacts/{SPLIT}/{name}", "digest": f"{name}-digest"} for name in ("train", "test")}
    record(store, "split", SPLIT, {"input data": f"{READ}-digest"}, **splits)
    record(store, "finetune", MODEL, {"input train": "train-digest", "settings": f"{OTHER}-digest"})
    record(store, "read_other", OTHER, {})
    return store


def write(store: Store, digest: str, name: str, table: pa.Table) -> None:
    path = store.root / "artifacts" / digest / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def record(store: Store, step: str, digest: str, inputs: dict[str, str], **nested: Any) -> None:
    artifact = {"uri": f"artifacts/{digest}", "digest": f"{digest}-digest", **nested}
    text = json.dumps({"key": step, "step": step, "artifact": artifact, "key_inputs": inputs})
    (store.root / "records" / f"{step}.json").write_text(text)


def steps(store: Store, subject: str) -> list[str]:
    rows = find_rows(store, subject)
    return sorted(each.step for each in affected(read_records(store), {each.artifact for each in rows}))


def test_rows_are_found_in_every_artifact(store: Store) -> None:
    assert find_rows(store, "u1") == [
        FoundRows(READ, "part-0.parquet", 2),
        FoundRows(SPLIT, "train/part-0.parquet", 1),
    ]
    assert [each.rows for each in find_rows(store, "8")] == [1, 1, 1], "a group that is an integer"
    assert find_rows(store, "u3") == []
    assert find_rows(store, "a") == []
    assert len(find_rows(store, "a", ["text"])) == 2


def test_what_was_made_of_the_rows_is_found_by_digests(store: Store) -> None:
    assert steps(store, "u1") == ["finetune", "read", "split"]
    assert steps(store, "u2") == ["finetune", "read", "read_other", "split"]
    assert steps(store, "u3") == []


def test_it_is_removed_and_nothing_else(store: Store) -> None:
    rows = find_rows(store, "u1")
    found = affected(read_records(store), {each.artifact for each in rows})
    assert remove(store, found, rows) == 3
    assert [path.name for path in (store.root / "artifacts").iterdir()] == [OTHER]
    assert [path.name for path in (store.root / "records").iterdir()] == ["read_other.json"]
    assert find_rows(store, "u1") == []


def test_an_interrupted_removal_is_found_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without rows is found by the records alone."""
    rows = find_rows(store, "u1")
    for _ in range(2):
        found = affected(read_records(store), {each.artifact for each in rows})
        with monkeypatch.context() as patch:
            deleted = patch_second_deletion(patch)
            with pytest.raises(KeyboardInterrupt):
                remove(store, found, rows)
        assert deleted, "something is done each time"
        assert steps(store, "u1")
    assert not (store.root / "artifacts" / MODEL).exists()
    rows = find_rows(store, "u1")
    remove(store, affected(read_records(store), {each.artifact for each in rows}), rows)
    assert [path.name for path in (store.root / "artifacts").iterdir()] == [OTHER]


def patch_second_deletion(patch: pytest.MonkeyPatch) -> list[Path]:
    """Interrupt `remove` before its second deletion; returns the paths that were deleted."""
    done: list[Path] = []

    def interrupted(path: Path) -> bool:
        if done:
            raise KeyboardInterrupt
        done.append(path)
        return delete(path)

    patch.setattr(removal, "delete", interrupted)
    return done


def test_a_folder_is_deleted_although_an_earlier_deletion_was_interrupted(store: Store) -> None:
    left = store.root / "artifacts" / f".{READ}.deleted"
    left.mkdir()
    (left / "part-0.parquet").write_bytes(b"x")
    assert delete(store.root / "artifacts" / READ)
    assert not left.exists()


def test_an_artifact_that_another_record_names_stays(store: Store) -> None:
    record(store, "same_model", MODEL, {})
    rows = find_rows(store, "u1")
    found = [
        each for each in affected(read_records(store), {each.artifact for each in rows}) if each.step != "same_model"
    ]
    remove(store, found, rows)
    assert (store.root / "artifacts" / MODEL / "model.safetensors").exists()


def test_a_file_that_cannot_be_read_is_named(store: Store) -> None:
    """Otherwise the subject might be in it."""
    (store.root / "artifacts" / OTHER / "part-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(PlatformError, match=r"part-0\.parquet cannot be read"):
        find_rows(store, "u1")


def test_a_home_that_is_not_there_has_not_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong RAYPATH_HOME would look like a subject that is gone."""
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "none"))
    assert cli.main(["forget", "u1"]) == 2
    assert "there is no home" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_command(store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(store.home))
    assert cli.main(["forget", ""]) == 2
    assert cli.main(["forget", "u1", "--dry-run"]) == 0
    assert len(find_rows(store, "u1")) == 2
    assert cli.main(["forget", "u1", "--yes"]) == 0
    assert cli.main(["forget", "u1", "--yes"]) == 0
    assert cli.main(["forget", "u1", "--proof"]) == 0
    assert cli.main(["forget", "u2", "--proof"]) == 0
    out = capsys.readouterr().out
    assert f"{READ[:16]}  part-0.parquet  2 rows" in out
    assert "made of them: finetune, read, split" in out
    assert "3 artifacts removed" in out
    assert "no rows of this subject" in out
    assert "record 1, " in out
    assert "3 rows, no versions, ok" in out
    assert "this subject was not forgotten here" in out
    [made] = read(store.home)
    assert made.detail["steps"] == ["finetune", "read", "split"]
    assert "u1" not in (folder_of(store.home) / "log.jsonl").read_text(), "the log would remember the subject"
