"""Copies of a step's scratch on object storage: complete, no larger than needed, and made by who holds the step."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from raypath.components.core.files import file_digest
from raypath.components.data.sources.bucket import Bucket
from raypath.deploy.store import scratch_sync
from raypath.deploy.store.object_store import ObjectStore
from raypath.deploy.store.scratch_sync import Index, ScratchMirror
from raypath.deploy.store.store import Store
from tests.deploy.store.s3 import Proxy
from tests.deploy.store.splits import SPLITS, record_of, write_splits
from tests.waiting import until


def test_checkpoints_outlive_their_node(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_sync, "PERIOD", 0.2)
    one, two = (ObjectStore(tmp_path / n, address) for n in ("1", "2"))
    one.open()
    two.open()
    at, here = one.scratch("k"), two.scratch("k")

    def on_one() -> None:
        for step in (1, 2):
            (at / f"step-{step}").mkdir(parents=True)
            (at / f"step-{step}" / "weights").write_bytes(bytes([step]) * (2 << 20))
        (at / ".step-3").mkdir()
        (at / ".step-3" / "weights").write_text("half")
        (at / "search.jsonl").write_text("one\n")
        until(lambda: one.bucket.get("scratch/k/index.json"))
        (at / "search.jsonl").write_text("one\ntwo\n")
        (at / "step-1" / "weights").unlink()

    def on_two() -> None:
        assert (here / "search.jsonl").read_text() == "one\ntwo\n"
        assert (here / "step-2" / "weights").read_bytes() == b"\2" * (2 << 20)
        assert sorted(p.name for p in here.iterdir()) == [".mirror", "search.jsonl", "step-2"]
        (here / "search.jsonl").write_text("one\ntwo\nthree\n")

    _broken_off(one, on_one)
    _broken_off(two, on_two)
    # The first node comes back: what it has is older.
    with one.lock("k"):
        assert (at / "search.jsonl").read_text() == "one\ntwo\nthree\n"
        one.commit(record_of("k"), SPLITS, write_splits(one, "k"))
    assert one.bucket.names("scratch/k") == []
    assert not at.exists()


def test_who_lost_the_lease_leaves_the_checkpoints_of_its_successor(address: str, proxy: Proxy, tmp_path: Path) -> None:
    bucket, folders = Bucket(address), [tmp_path / "loser", tmp_path / "winner"]
    for folder in folders:
        folder.mkdir()
        (folder / "weights").write_text(folder.name)
    held = [True]
    loser, winner = (ScratchMirror(bucket, "k", folder, lambda n=n: n or held[0]) for n, folder in enumerate(folders))
    loser.copy()
    held[0] = False
    winner.copy()
    (folders[0] / "weights").write_text("too late")
    loser.copy()
    assert stored(bucket) == {"weights": b"winner"}


def test_a_copy_sends_what_is_new_and_removes_what_is_gone(address: str, proxy: Proxy, tmp_path: Path) -> None:
    bucket, folder = Bucket(address), tmp_path / "k"
    folder.mkdir()
    (folder / "old").write_text("old")
    (folder / "same").write_text("same")
    (folder / "twin").write_text("same")
    mirror = ScratchMirror(bucket, "k", folder, lambda: True)
    mirror.copy()
    assert stored(bucket) == {"old": b"old", "same": b"same", "twin": b"same"}
    assert len(bucket.names("scratch/k")) == 3, "an index, and two contents"
    (folder / "old").unlink()
    (folder / "new").write_text("new")
    proxy.seen.clear()
    mirror.copy()
    assert stored(bucket) == {"new": b"new", "same": b"same", "twin": b"same"}
    assert len(bucket.names("scratch/k")) == 3
    assert [method for method, path in proxy.seen].count("PUT") == 2, "the new file and the index"
    proxy.seen.clear()
    mirror.copy()
    assert proxy.seen == [], "nothing changed"


@pytest.mark.parametrize("fault", ["flip", "absent"])
def test_a_damaged_copy_is_left_out(
    address: str, proxy: Proxy, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    bucket, folders = Bucket(address), [tmp_path / "1", tmp_path / "2"]
    folders[0].mkdir()
    for name in ("a", "b"):
        (folders[0] / name).write_text(name)
    ScratchMirror(bucket, "k", folders[0], lambda: True).copy()
    bad = file_digest(folders[0] / "a")
    proxy.fault = lambda method, path: fault if method == "GET" and bad in path else None
    second = ScratchMirror(bucket, "k", folders[1], lambda: True)
    second.start()
    second.stop(last=False)
    here = sorted(path.name for path in folders[1].iterdir()) if folders[1].exists() else []
    assert here == ([".mirror", "b"] if fault == "flip" else [])
    incomplete = f"the copied checkpoints in {address} are incomplete; the step starts from its beginning"
    assert caplog.messages == (["a corrupt copy of a is left out"] if fault == "flip" else [incomplete])
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == [], "nothing half restored"


def test_a_copy_that_fails_is_logged_and_leaves_nothing(
    address: str, proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own" / "k"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("w")
    mirror = ScratchMirror(Bucket(address), "k", folder, lambda: True)
    mirror.start()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scratch_sync, "file_digest", full)
        mirror.stop(last=True)
    assert not mirror._thread.is_alive()
    assert caplog.messages == [
        f"the checkpoints were not copied to {address}: [Errno 28] No space left on device",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["k"]
    mirror.stop(last=True)
    assert stored(Bucket(address)) == {"weights": b"w"}
    assert [path.name for path in folder.parent.iterdir()] == ["k"]


def stored(bucket: Bucket) -> dict[str, bytes]:
    """The files of the copy, by name."""
    found = bucket.get("scratch/k/index.json")
    assert found is not None
    made = {}
    for name, (digest, size) in Index.model_validate_json(found[0]).files.items():
        kept = bucket.get(f"scratch/k/{digest}")
        assert kept is not None
        assert len(kept[0]) == size
        made[name] = kept[0]
    return made


def _broken_off(store: Store, work: Callable[[], None]) -> None:
    """An attempt at the step that does some work and then fails."""
    with contextlib.suppress(InterruptedError), store.lock("k"):
        work()
        raise InterruptedError
