"""The store on object storage: a real server, a real proxy that spoils exchanges, real kills."""

import json
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from raypath.components import Context, Params, component, workflow
from raypath.components.core.artifacts import Dataset, Model, Report, Splits
from raypath.components.core.errors import StoreError, Unavailable, UserError
from raypath.deploy.execution.runner import Runner
from raypath.deploy.store import lease
from raypath.deploy.store.factory import open_store
from tests.deploy.execution.test_runner import Here, Nobody
from tests.deploy.store.s3 import BUCKET, KEYS, Proxy, rclone
from tests.deploy.store.splits import SPLITS, record_of, splits_of, text_of, write_splits
from tests.waiting import until


def test_another_machine_finds_the_record_and_fetches_only_what_it_asks_for(
    address: str, proxy: Proxy, tmp_path: Path
) -> None:
    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    done = one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    proxy.seen.clear()
    found = splits_of(two.record("k"))
    assert found.digest == done.digest
    assert not any("/artifacts/" in path for _, path in proxy.seen), "a look at the record fetches no files"
    assert not Path(found.uri).exists()
    train = two.local(found.train)
    assert text_of(train) == "train x"
    assert sum("/artifacts/" in path for _, path in proxy.seen) == 1
    whole = two.local(found)
    assert [text_of(part) for _, part in whole.nested()] == ["train x", "valid x", "test x"]
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
    done = one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    attempt = one.attempt("m")
    (attempt / "model.bin").write_text("weights")
    model = one.commit(record_of("m"), Model(task="t", base="b", max_length=8), attempt)
    report = Report(model=model, data=done.test, metrics={"f1": 1.0})
    one.commit(record_of("r"), report, one.attempt("r"))
    record = two.record("r")
    assert record is not None
    found = two.local(Report.model_validate_json(json.dumps(record.artifact)))
    assert Path(found.model.uri, "model.bin").read_text() == "weights"
    assert text_of(found.data) == "test x"
    assert all(str(two.home) in uri for uri in (found.uri, found.model.uri, found.data.uri))


def test_the_first_record_wins_and_the_loser_takes_it(address: str, tmp_path: Path) -> None:
    stores = [open_store(tmp_path / str(n), address) for n in range(4)]
    attempts = [write_splits(store, "k", str(n)) for n, store in enumerate(stores)]
    results: dict[int, Splits] = {}

    def commit(n: int) -> None:
        results[n] = stores[n].commit(record_of("k"), SPLITS, attempts[n])

    threads = [threading.Thread(target=commit, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len({result.digest for result in results.values()}) == 1
    assert len({text_of(stores[n].local(results[n]).train) for n in range(4)}) == 1


def test_forgotten_or_without_its_files_a_step_is_not_done(address: str, proxy: Proxy, tmp_path: Path) -> None:
    from raypath.deploy.store.object_store import ObjectStore

    one, two = open_store(tmp_path / "1", address), open_store(tmp_path / "2", address)
    assert isinstance(one, ObjectStore)
    one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    two.forget("k")
    assert one.record("k") is None
    done = one.commit(record_of("k"), SPLITS, write_splits(one, "k", "again"))
    one.bucket.delete([f"manifests/{done.digest}.json"])
    assert two.record("k") is None
    # The record that is in the way counts as none: the next commit takes its place.
    third = two.commit(record_of("k"), SPLITS, write_splits(two, "k", "third"))
    assert splits_of(one.record("k")).digest == third.digest
    one.bucket.put("records/k.json", b'{"half')
    assert two.record("k") is None
    two.commit(record_of("k"), SPLITS, write_splits(two, "k", "third"))
    assert splits_of(one.record("k")).digest == third.digest


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
    address: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from raypath.components.data.sources.bucket import Bucket

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
    assert "leases/k.json was taken over by another process" in caplog.text
    first.release()
    assert second._mine(), "who lost it leaves it to its holder"
    second.release()


def test_a_shared_folder_needs_no_copies(tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "1", str(tmp_path / "s")), open_store(tmp_path / "2", str(tmp_path / "s"))
    done = one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    found = splits_of(two.record("k"))
    assert two.local(found) == found == done
    assert str(tmp_path / "s") in found.uri
    assert str(tmp_path) not in (tmp_path / "s" / "records" / "k.json").read_text()
    # Mounted elsewhere on another machine.
    (tmp_path / "s").rename(tmp_path / "t")
    three = open_store(tmp_path / "3", str(tmp_path / "t"))
    assert text_of(splits_of(three.record("k")).train) == "train x"
    assert text_of(three.local(done).train) == "train x"
    with pytest.raises(StoreError, match="is missing"):
        one.local(done)


def test_a_server_that_ignores_conditions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rclone's server checks signatures; files travel to it and back, but it cannot hold records."""
    from raypath.components.data.sources.bucket import Bucket

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
