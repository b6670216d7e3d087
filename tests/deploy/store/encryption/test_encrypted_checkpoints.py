"""A training that was killed resumes from its encrypted checkpoints and ends in the very bits of one left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from raypath.components.encryption.master_keys import create_key
from raypath.components.encryption.vault import create_vault
from raypath.components.encryption.working_folder import base_folder
from raypath.deploy.store.encryption import encrypted_store
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Store
from tests.components.training.test_crashes import ROWS, _lines, _train
from tests.forks import forks
from tests.tiny import tiny_bert

KEY = "a" * 64


def _train_encrypted(home: Path, base: Path, count: int, digest: Path) -> None:
    encrypted_store.MIRROR_SECONDS = 0.2
    store = open_store(home, "")
    with store.lock(KEY):
        scratch = store.scratch(KEY)
        scratch.mkdir(parents=True, exist_ok=True)
        _train(base, scratch, "fp32", count)
        shutil.copyfile(scratch / "digest", digest)
        shutil.copyfile(scratch / "steps", digest.with_name("steps"))
    store.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_training_changes_no_bit(tmp_path: Path) -> None:
    base, home, alone = tiny_bert(tmp_path / "base"), tmp_path / "home", tmp_path / "alone"
    alone.mkdir()
    count = 4 * ROWS
    process = forks().Process(target=_train, args=(base, alone, "fp32", count))
    process.start()
    process.join()
    Store(home).open()
    vault = create_vault(home, create_key(tmp_path / "master.key"))
    process = forks().Process(target=_train_encrypted, args=(home, base, count, tmp_path / "digest"))
    process.start()
    index, copied, end = home / "scratch" / KEY / "index.json", {}, time.time() + 60
    while not any(name.endswith("manifest.json") for name in copied) and time.time() < end:
        time.sleep(0.05)
        copied = json.loads(vault.read(index))["files"] if index.exists() else {}
    assert process.is_alive(), "the training ended before it could be killed: give it more rows"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    shutil.rmtree(base_folder(home))
    process = forks().Process(target=_train_encrypted, args=(home, base, count, tmp_path / "digest"))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "digest").read_text() == (alone / "digest").read_text()
    done = [line["step"] for line in _lines(tmp_path / "steps")]
    assert done.count(1) == 1, "it did not begin anew"
    assert not base_folder(home).exists()
