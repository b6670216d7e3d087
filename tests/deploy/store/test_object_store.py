"""The store on object storage: a real server, a real proxy that spoils exchanges, real kills."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raypath.components import Context, Params, component, workflow
from raypath.components.core.artifacts import Dataset, Model, Report, Splits
from raypath.components.core.errors import ParamsError, StoreError, Unavailable, UserError
from raypath.deploy.execution.runner import Runner
from raypath.deploy.store import lease
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Record, Store
from tests.deploy.execution.test_runner import Here, Nobody
from tests.deploy.store.s3 import BUCKET, KEYS, ROOT, Fault, Proxy, rclone
from tests.waiting import until

KILLS = int(os.environ.get("RAYPATH_KILLS", "5"))


def _record(key: str) -> Record:
    return Record(key=key, step="s", component="m:f", key_inputs={}, artifact={}, started=0.0, seconds=1.0)


SPLITS = Splits(
    train=Dataset(uri="train", rows=1), valid=Dataset(uri="valid", rows=1), test=Dataset(uri="test", rows=1)
)


def _splits(store: Store, key: str, text: str = "x", size: int = 1) -> Path:
    attempt = store.attempt(key)
    for part in ("train", "valid", "test"):
        (attempt / part).mkdir()
        (attempt / part / "a b#ü%.txt").write_text(f"{part} {text}" * size)
    return attempt


def _read(part: Dataset) -> str:
    return (Path(part.uri) / "a b#ü%.txt").read_text()


def _artifact(record: Record | None) -> Splits:
    assert record is not None
    return Splits.model_validate_json(json.dumps(record.artifact))


def test_another_machine_finds_the_record_and_fetches_only_what_it_asks_for(
    address: str, proxy: Proxy, tmp_path: Path
) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = one.commit(_record("k"), SPLITS, _splits(one, "k"))
    proxy.seen.clear()
    found = _artifact(two.record("k"))
    assert found.digest == done.digest
    assert not any("/artifacts/" in path for _, path in proxy.seen), "a look at the record fetches no files"
    assert not Path(found.uri).exists()
    train = two.local(found.train)
    assert _read(train) == "train x"
    assert sum("/artifacts/" in path for _, path in proxy.seen) == 1
    whole = two.local(found)
    assert [_read(part) for _, part in whole.nested()] == ["train x", "valid x", "test x"]
    proxy.seen.clear()
    assert two.local(found) == whole
    # As a step on a third machine is given it, with the address on the second one.
    assert two.local(done) == whole
    assert one.local(whole) == done
    assert proxy.seen == [], "what is here is not fetched again"
    assert all(p.stat().st_mode & 0o077 == 0 for p in Path(whole.uri).rglob("*.txt"))


class Make(Params):
    """How much."""

    rows: int = 3
    """Rows."""


class Flow(Params):
    """Make, then repeat."""

    make: Make = Make()
    repeat: Make = Make(rows=2)
    seed: int = 0
    """Seed."""


@component(version=1)
def make(ctx: Context, params: Make) -> Dataset:
    (ctx.out / "rows").write_text("row" * params.rows)
    return Dataset(rows=params.rows)


@component(version=1)
def repeat(ctx: Context, data: Dataset, params: Make) -> Dataset:
    (ctx.out / "rows").write_text((ctx.input(data) / "rows").read_text() * params.rows)
    return Dataset(rows=data.rows * params.rows)


@workflow
def flow(p: Flow) -> Dataset:
    return repeat(make(p.make), p.repeat)


def _run(home: Path, address: str, times: int) -> tuple[Dataset, dict[str, str]]:
    graph = flow.trace(Flow(repeat=Make(rows=times)))
    runner = Runner(graph, open_store(home, address), Here(), Nobody())
    result = runner.execute()
    assert isinstance(result, Dataset)
    return result, {step.name: step.status for step in runner.run.steps}


def test_a_step_elsewhere_has_its_inputs_brought(address: str, proxy: Proxy, tmp_path: Path) -> None:
    result, states = _run(tmp_path / "1", address, 2)
    assert states == {"make": "done", "repeat": "done"}
    again, states = _run(tmp_path / "2", address, 2)
    assert states == {"make": "reused", "repeat": "reused"}
    assert again.digest == result.digest
    assert not any((tmp_path / "2" / "artifacts").iterdir()), "a run that needs nothing fetches nothing"
    result, states = _run(tmp_path / "2", address, 4)
    assert states == {"make": "reused", "repeat": "done"}
    assert Path(result.uri, "rows").read_text() == "row" * 12
    shutil.rmtree(tmp_path / "1" / "artifacts")
    _, states = _run(tmp_path / "1", address, 4)
    assert states == {"make": "reused", "repeat": "reused"}, "a home is only a cache"


def test_what_an_artifact_holds_comes_with_it(address: str, tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = one.commit(_record("k"), SPLITS, _splits(one, "k"))
    attempt = one.attempt("m")
    (attempt / "model.bin").write_text("weights")
    model = one.commit(_record("m"), Model(task="t", base="b", max_length=8), attempt)
    report = Report(model=model, data=done.test, metrics={"f1": 1.0})
    one.commit(_record("r"), report, one.attempt("r"))
    record = two.record("r")
    assert record is not None
    found = two.local(Report.model_validate_json(json.dumps(record.artifact)))
    assert Path(found.model.uri, "model.bin").read_text() == "weights"
    assert _read(found.data) == "test x"
    assert all(str(two.home) in uri for uri in (found.uri, found.model.uri, found.data.uri))


def test_the_first_record_wins_and_the_loser_takes_it(address: str, tmp_path: Path) -> None:
    stores = [open_store(tmp_path / str(n), address) for n in range(4)]
    attempts = [_splits(store, "k", str(n)) for n, store in enumerate(stores)]
    results: dict[int, Splits] = {}

    def commit(n: int) -> None:
        results[n] = stores[n].commit(_record("k"), SPLITS, attempts[n])

    threads = [threading.Thread(target=commit, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len({result.digest for result in results.values()}) == 1
    assert len({_read(stores[n].local(results[n]).train) for n in range(4)}) == 1


def test_forgotten_or_without_its_files_a_step_is_not_done(address: str, proxy: Proxy, tmp_path: Path) -> None:
    from raypath.deploy.store.object_store import ObjectStore

    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    assert isinstance(one, ObjectStore)
    one.commit(_record("k"), SPLITS, _splits(one, "k"))
    two.forget("k")
    assert one.record("k") is None
    done = one.commit(_record("k"), SPLITS, _splits(one, "k", "again"))
    one.bucket.delete([f"manifests/{done.digest}.json"])
    assert two.record("k") is None
    # The record that is in the way counts as none: the next commit takes its place.
    third = two.commit(_record("k"), SPLITS, _splits(two, "k", "third"))
    assert _artifact(one.record("k")).digest == third.digest
    one.bucket.put("records/k.json", b'{"half')
    assert two.record("k") is None
    two.commit(_record("k"), SPLITS, _splits(two, "k", "third"))
    assert _artifact(one.record("k")).digest == third.digest


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
            one.commit(_record(f"k{n}"), SPLITS, _splits(one, f"k{n}", f"{seed} {n}", size=1000))
        found = two.local(_artifact(two.record(f"k{n}")))
        assert _read(found.valid) == f"valid {seed} {n}" * 1000
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
    done = one.commit(_record("k"), Dataset(rows=1), attempt)
    assert len(torn) == 4
    proxy.fault = lambda method, path: "cut" if method == "GET" and random.random() < 0.3 else None
    assert Path(two.local(done).uri, "model.safetensors").read_bytes() == data


def test_a_damaged_download_is_tried_again_and_never_seen(address: str, proxy: Proxy, tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = one.commit(_record("k"), SPLITS, _splits(one, "k"))
    flips = ["flip", "flip"]
    proxy.fault = lambda method, path: flips.pop() if "/artifacts/" in path and method == "GET" and flips else None
    assert _read(two.local(done.train)) == "train x"
    assert not flips
    proxy.fault = lambda method, path: "flip" if "/artifacts/" in path and method == "GET" else None
    with pytest.raises(StoreError, match="corrupt; run the same command again, which recomputes it"):
        two.local(done.test)
    assert [p.name for p in (two.home / "artifacts").iterdir() if (p / "test").exists()] == []
    assert list((two.home / "attempts").iterdir()) == []
    proxy.fault = lambda method, path: None
    assert two.record("k") is None, "its step runs again"
    two.commit(_record("k"), SPLITS, _splits(two, "k"))
    assert _artifact(one.record("k")).digest == done.digest


def test_an_upload_that_was_kept_in_part_is_no_commit(address: str, proxy: Proxy, tmp_path: Path) -> None:
    one = open_store(tmp_path / "1", address)
    proxy.fault = lambda method, path: "short" if method == "PUT" and path.endswith(".txt") else None
    with pytest.raises(Unavailable, match=r"stored only a part of artifacts/\w+/\w+/.*; run the same command again"):
        one.commit(_record("k"), SPLITS, _splits(one, "k"))
    assert one.record("k") is None
    proxy.fault = lambda method, path: None
    one.commit(_record("k"), SPLITS, _splits(one, "k"))
    assert one.record("k") is not None


def test_no_list_is_relied_on(address: str, proxy: Proxy, tmp_path: Path) -> None:
    proxy.fault = lambda method, path: "empty"
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    with one.lock("k"):
        (one.scratch("k") / "step-1").write_text("weights")
        one.commit(_record("k"), SPLITS, _splits(one, "k"))
    assert _read(two.local(_artifact(two.record("k"))).train) == "train x"
    two.forget("k")
    assert one.record("k") is None


KILLED = """
import json, sys
from pathlib import Path
from tests.deploy.store.test_object_store import SPLITS, _record, _splits
from raypath.deploy.store.store import open_store
store = open_store(Path(sys.argv[1]), sys.argv[2])
for n in range(int(sys.argv[3]), 10**6):
    attempt = _splits(store, f"k{n}", str(n), size=300_000)
    print(n, flush=True)
    with store.lock(f"k{n}"):
        store.commit(_record(f"k{n}"), SPLITS, attempt)
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
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        begun += 1 + len(process.communicate()[0].split())
        found = look.record(f"k{begun - 1}")
        if found is not None:
            whole += 1
            assert _read(look.local(_artifact(found)).train) == f"train {begun - 1}" * 300_000
        # The one that was cut off is done again, although its lease was never given back.
        with look.lock(f"k{begun - 1}"):
            again = look.commit(_record(f"k{begun - 1}"), SPLITS, _splits(look, "again", str(begun - 1), 300_000))
        assert _read(look.local(again).test) == f"test {begun - 1}" * 300_000
    assert all(look.record(f"k{n}") is not None for n in range(begun))
    print(f"{KILLS} kills among {begun} commits, {whole} of them just after the record")


def test_a_full_disk_is_told(address: str, tmp_path: Path) -> None:
    one = open_store(tmp_path / "1", address)
    done = one.commit(_record("k"), SPLITS, _splits(one, "k", size=3 << 20))
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


def test_a_second_driver_waits_for_the_first(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "TTL", 6.0)
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    order: list[str] = []

    def second() -> None:
        with two.lock("k"):
            order.append("second")

    with caplog.at_level("INFO", "raypath.store"), one.lock("k"):
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: "another process holds" in caplog.text)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_loses(
    address: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypath.deploy.store.bucket import Bucket

    monkeypatch.setattr(lease, "TTL", 1.5)
    open_store(tmp_path, address)
    monkeypatch.setattr(lease, "machine_id", lambda: "far away")
    first = lease.Lease(Bucket(address), "k")
    first.acquire()
    monkeypatch.setattr(lease, "machine_id", lambda: "here")
    second, took = lease.Lease(Bucket(address), "k"), []
    thread = threading.Thread(target=lambda: took.append(second.acquire()))
    thread.start()
    beat = first._beat
    until(lambda: first._beat >= beat + 2 * lease.BEATS or took)
    assert not took, "it is renewed"
    # The first machine is cut off from the storage: its renewals do not arrive.
    first._bucket = Bucket(address)
    first._bucket.get = lambda name: (_ for _ in ()).throw(Unavailable("away"))  # type: ignore[method-assign]
    thread.join(15)
    assert took, "a holder that is silent loses it"
    del first._bucket.get
    end = time.monotonic() + 5
    while not first.lost and time.monotonic() < end:
        time.sleep(0.05)
    assert first.lost
    first.release()
    assert second._mine(), "who lost it leaves it to its holder"
    second.release()


def test_a_shared_folder_needs_no_copies(tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "1", str(tmp_path / "s")), open_store(tmp_path / "2", str(tmp_path / "s"))
    done = one.commit(_record("k"), SPLITS, _splits(one, "k"))
    found = _artifact(two.record("k"))
    assert two.local(found) == found == done
    assert str(tmp_path / "s") in found.uri
    assert str(tmp_path) not in (tmp_path / "s" / "records" / "k.json").read_text()
    # Mounted elsewhere on another machine.
    (tmp_path / "s").rename(tmp_path / "t")
    three = open_store(tmp_path / "3", str(tmp_path / "t"))
    assert _read(_artifact(three.record("k")).train) == "train x"
    assert _read(three.local(done).train) == "train x"
    with pytest.raises(StoreError, match="is missing"):
        one.local(done)


def test_a_server_that_ignores_conditions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rclone's server checks signatures; files travel to it and back, but it cannot hold records."""
    from raypath.deploy.store.bucket import Bucket

    with rclone(tmp_path / "served") as served:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": served}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match="does not honour conditional puts"):
            open_store(tmp_path / "home", f"s3://{BUCKET}/x")
        bucket, data = Bucket(f"s3://{BUCKET}/x"), random.Random(0).randbytes(40 << 20)
        (tmp_path / "file").write_bytes(data)
        bucket.upload(tmp_path / "file", "a b/file")
        assert (tmp_path / "served" / BUCKET / "x" / "a b" / "file").read_bytes() == data
        data = data[: 10 << 20]
        (tmp_path / "file").write_bytes(data)
        bucket.upload(tmp_path / "file", "a b/file")
        bucket.download("a b/file", tmp_path / "back", len(data))
        assert (tmp_path / "back").read_bytes() == data
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(UserError, match=r"rejects these credentials \(SignatureDoesNotMatch\)"):
            open_store(tmp_path / "home", f"s3://{BUCKET}/x")
