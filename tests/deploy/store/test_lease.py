"""Leases: who holds one, and when it is over."""

import json
import os
import subprocess
import sys
import time

import pytest

from raypath.components.data.sources.bucket import Bucket
from raypath.deploy.store import lease
from raypath.deploy.store.lease import Lease
from tests.deploy.store.s3 import Proxy
from tests.waiting import until


def test_a_process_that_ended_is_dead_also_before_it_is_buried() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        held = {"machine": lease.machine_id(), "pid": process.pid, "since": lease._since(process.pid)}
        assert held["since"]
        assert not lease._dead(held)
        assert lease._dead({**held, "since": "1"}), "its number was given out again"
        assert not lease._dead({**held, "machine": "another", "since": "1"}), "its processes are not ours"
        process.kill()
        until(lambda: lease._dead(held))
        assert process.returncode is None
    assert lease._dead(held)
    assert not lease._dead({"machine": lease.machine_id(), "pid": os.getpid(), "since": lease._since(os.getpid())})


def test_a_lease_of_a_dead_process_here_is_taken_over_at_once(address: str, proxy: Proxy) -> None:
    gone = {"holder": "x", "machine": lease.machine_id(), "pid": os.getpid(), "since": "1", "beat": 1}
    Bucket(address).put("leases/k.json", json.dumps(gone).encode())
    started = time.monotonic()
    mine = Lease(Bucket(address), "k")
    mine.acquire()
    assert time.monotonic() - started < lease.TTL / 3
    assert mine._mine()
    mine.release()
    found = Bucket(address).get("leases/k.json")
    assert found is not None
    assert json.loads(found[0])["holder"] == "", "it was given back"


def test_a_lease_is_ours_although_the_answer_was_lost(
    address: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = ["lost"]
    proxy.fault = lambda method, path: lost.pop() if method == "PUT" and "leases/" in path and lost else None
    mine = Lease(Bucket(address), "k")
    mine.acquire()
    assert not lost
    assert mine._mine()
    mine.release()
