"""The ledger of keys with limits: shared by processes, exact under contention, and no reason to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raypath.components.serving.metering.ledger import KeyState, Ledger, SharedLedger

ADD = """
import sys
from pathlib import Path
from raypath.components.serving.metering.ledger import SharedLedger
ledger = SharedLedger(Path(sys.argv[1]))
for n in range(2000):
    for key in ("a", sys.argv[2]):
        with ledger.state(key) as state:
            state.tokens += 1
"""


def tokens(ledger: Ledger, key: str) -> int:
    with ledger.state(key) as state:
        return state.tokens


def test_processes_count_together(tmp_path: Path) -> None:
    file = tmp_path / "usage" / "limits"
    many = [subprocess.Popen([sys.executable, "-c", ADD, str(file), name]) for name in "bcd"]
    assert [each.wait(60) for each in many] == [0, 0, 0]
    ledger = SharedLedger(file)
    assert [tokens(ledger, key) for key in "abcde"] == [6_000, 2_000, 2_000, 2_000, 0]
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"a" * 3 not in file.read_bytes(), "ids are hashed"
    ledger.close()


def test_an_error_in_the_block_keeps_what_it_changed(tmp_path: Path) -> None:
    ledger = SharedLedger(tmp_path / "limits")

    def refuse() -> None:
        with ledger.state("a") as state:
            state.requests_left = 2.5
            raise RuntimeError

    with pytest.raises(RuntimeError):
        refuse()
    with SharedLedger(tmp_path / "limits").state("a") as state:
        assert state.requests_left == 2.5


def test_without_the_file_it_counts_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    outside = tmp_path / "outside"
    outside.touch()
    (tmp_path / "limits").symlink_to(outside)
    for place in (tmp_path / "file" / "limits", tmp_path / "limits"):
        ledger = SharedLedger(place)
        with ledger.state("a") as state:
            state.tokens += 7
        assert tokens(ledger, "a") == 7
    assert "counted by this process alone" in caplog.text
    assert not outside.read_bytes(), "a link is not followed"


def test_a_stopped_process_stops_no_other(tmp_path: Path) -> None:
    stopped = """
import sys, time
from pathlib import Path
from raypath.components.serving.metering.ledger import SharedLedger
with SharedLedger(Path(sys.argv[1])).state("a"):
    print("locked", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", stopped, str(tmp_path / "limits")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with SharedLedger(tmp_path / "limits").state("a") as state:
            assert state == KeyState()
        os.kill(other.pid, 9)


def test_two_ledgers_of_one_process_lose_no_count(tmp_path: Path) -> None:
    def count(ledger: SharedLedger) -> None:
        for _ in range(300):
            with ledger.state("anna") as state:
                state.requests += 1

    ledgers = [SharedLedger(tmp_path / "ledger") for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, ledgers * 2))
    with ledgers[0].state("anna") as state:
        assert state.requests == 1_200
    for ledger in ledgers:
        ledger.close()
