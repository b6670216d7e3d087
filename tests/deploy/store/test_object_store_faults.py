"""The store on object storage when servers, disks and processes fail: a proxy that spoils exchanges, real kills."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import ParamsError, StoreError, Unavailable, UserError
from raypath.deploy.store import lease
from raypath.deploy.store.factory import open_store
from tests.deploy.store.s3 import ROOT, Fault, Proxy
from tests.deploy.store.splits import SPLITS, record_of, splits_of, text_of, write_splits

KILLS = int(os.environ.get("RAYPATH_KILLS", "5"))


@pytest.mark.parametrize("seed", range(3))
def test_throttling_broken_servers_and_torn_exchanges_are_survived(
    address: str, proxy: Proxy, tmp_path: Path, seed: int
) -> None:
    rng, faults = random.Random(seed), ["slow", "broken", "torn", "lost", "cut"]
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    spoiled: list[str] = []

    def fault(method: str, path: str) -> Fault:
        if rng.random() < 0.3:
            spoiled.append(rng.choice(faults))
            return spoiled[-1]
        return None

    proxy.fault = fault
    for n in range(3):
        with one.lock(f"k{n}"):
            one.commit(record_of(f"k{n}"), SPLITS, write_splits(one, f"k{n}", f"{seed} {n}", size=1000))
        found = two.local(splits_of(two.record(f"k{n}")))
        assert text_of(found.valid) == f"valid {seed} {n}" * 1000
    assert len(spoiled) > 5


def test_a_large_file_goes_in_parts_that_are_tried_again_alone(address: str, proxy: Proxy, tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    attempt = one.attempt("k")
    data = random.Random(0).randbytes(50 << 20)
    (attempt / "model.safetensors").write_bytes(data)
    torn: set[str] = set()

    def fault(method: str, path: str) -> Fault:
        if method == "PUT" and "partNumber=" in path and path not in torn:
            torn.add(path)
            return "torn"
        return None

    proxy.fault = fault
    done = one.commit(record_of("k"), Dataset(rows=1), attempt)
    assert len(torn) == 4
    proxy.fault = lambda method, path: "cut" if method == "GET" and random.random() < 0.3 else None
    assert Path(two.local(done).uri, "model.safetensors").read_bytes() == data


def test_a_damaged_download_is_tried_again_and_never_seen(address: str, proxy: Proxy, tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    flips = ["flip", "flip"]
    proxy.fault = lambda method, path: flips.pop() if "/artifacts/" in path and method == "GET" and flips else None
    assert text_of(two.local(done.train)) == "train x"
    assert not flips
    proxy.fault = lambda method, path: "flip" if "/artifacts/" in path and method == "GET" else None
    with pytest.raises(StoreError, match="corrupt; run the same command again, which recomputes it"):
        two.local(done.test)
    assert [p.name for p in (two.home / "artifacts").iterdir() if (p / "test").exists()] == []
    assert list((two.home / "attempts").iterdir()) == []
    proxy.fault = lambda method, path: None
    assert two.record("k") is None, "its step runs again"
    two.commit(record_of("k"), SPLITS, write_splits(two, "k"))
    assert splits_of(one.record("k")).digest == done.digest


def test_an_upload_that_was_kept_in_part_is_no_commit(address: str, proxy: Proxy, tmp_path: Path) -> None:
    one = open_store(tmp_path / "1", address)
    proxy.fault = lambda method, path: "short" if method == "PUT" and path.endswith(".txt") else None
    with pytest.raises(Unavailable, match=r"stored only a part of artifacts/\w+/\w+/.*; run the same command again"):
        one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    assert one.record("k") is None
    proxy.fault = lambda method, path: None
    one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    assert one.record("k") is not None


def test_no_list_is_relied_on(address: str, proxy: Proxy, tmp_path: Path) -> None:
    proxy.fault = lambda method, path: "empty"
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    with one.lock("k"):
        (one.scratch("k") / "step-1").write_text("weights")
        one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    assert text_of(two.local(splits_of(two.record("k"))).train) == "train x"
    two.forget("k")
    assert one.record("k") is None


KILLED = """
import json, sys
from pathlib import Path
from tests.deploy.store.splits import SPLITS, record_of, write_splits
from raypath.deploy.store.factory import open_store
store = open_store(Path(sys.argv[1]), sys.argv[2])
for n in range(int(sys.argv[3]), 10**6):
    attempt = write_splits(store, f"k{n}", str(n), size=300_000)
    print(n, flush=True)
    with store.lock(f"k{n}"):
        store.commit(record_of(f"k{n}"), SPLITS, attempt)
"""


def test_a_kill_leaves_no_record_or_a_whole_artifact(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody has the time to wait for this: what is taken over is the lease of a process that is gone.
    monkeypatch.setattr(lease, "TTL", 3600.0)
    rng, begun, whole, look = random.Random(7), 0, 0, open_store(tmp_path / "look", address)
    for _ in range(KILLS):
        line = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), address, str(begun)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        for _ in range(1 + rng.randrange(3)):
            assert process.stdout.readline() == f"{begun}\n"
            begun += 1
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        begun += len(process.communicate()[0].split())
        found = look.record(f"k{begun - 1}")
        if found is not None:
            whole += 1
            assert text_of(look.local(splits_of(found)).train) == f"train {begun - 1}" * 300_000
        # The one that was cut off is done again, although its lease was never given back.
        with look.lock(f"k{begun - 1}"):
            again = look.commit(
                record_of(f"k{begun - 1}"), SPLITS, write_splits(look, "again", str(begun - 1), 300_000)
            )
        assert text_of(look.local(again).test) == f"test {begun - 1}" * 300_000
    assert all(look.record(f"k{n}") is not None for n in range(begun))
    print(f"{KILLS} kills among {begun} commits, {whole} of them just after the record")


def test_a_full_disk_is_told(address: str, tmp_path: Path) -> None:
    one = open_store(tmp_path / "1", address)
    done = one.commit(record_of("k"), SPLITS, write_splits(one, "k", size=3 << 20))
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        two = open_store(small / "home", address)
        with pytest.raises(
            StoreError, match=r"an input takes 2\d MiB, and the disk .* has 1\d MiB free; free disk space"
        ):
            two.local(done.train)
        two.free_bytes = lambda: 1 << 40  # type: ignore[method-assign]
        with pytest.raises(StoreError, match=r"cannot fetch to .*: the disk is full; free disk space"):
            two.local(done.train)
        assert list((two.home / "artifacts").iterdir()) == list((two.home / "attempts").iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_is_wrong_with_the_storage_is_told_in_one_line(
    address: str, proxy: Proxy, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(kind: type[Exception], line: str, where: str = address) -> None:
        with pytest.raises(kind, match=line) as caught:
            open_store(tmp_path / "home", where)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300

    told(UserError, "no such bucket; create it, or correct RAYPATH_STORE", "s3://elsewhere/x")
    told(ParamsError, r"RAYPATH_STORE is 's3://A_B/c'; write s3://BUCKET/FOLDER", "s3://A_B/c")
    told(ParamsError, r"RAYPATH_STORE is 'gs://bucket/x'; write", "gs://bucket/x")
    (tmp_path / "file").write_text("")
    told(UserError, "cannot create folders in .*: Not a directory; correct", str(tmp_path / "file"))
    proxy.fault = lambda method, path: "refused"
    told(UserError, r"rejects these credentials \(InvalidAccessKeyId\); check AWS_ACCESS_KEY_ID")
    proxy.fault = lambda method, path: "slow"
    told(Unavailable, r"does not respond \(SlowDown\); check AWS_ENDPOINT_URL")
    proxy.fault = lambda method, path: "absent"
    told(UserError, r"s3://team/\w+ at http://127.0.0.1:\d+ is not an S3 server; correct AWS_ENDPOINT_URL")
    proxy.fault = lambda method, path: "unconditional"
    told(UserError, r"does not honour conditional puts \(If-None-Match\)")
    proxy.fault = lambda method, path: "unmatched"
    told(UserError, r"does not honour conditional puts \(If-Match\)")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    told(Unavailable, r"s3://team/\w+ at http://127.0.0.1:9 does not respond \(no connection\)")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    # What stands for the machine's role here gives no keys.
    proxy.fault = lambda method, path: "refused"
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", proxy.address)
    told(UserError, "no credentials; set AWS_ACCESS_KEY_ID")
