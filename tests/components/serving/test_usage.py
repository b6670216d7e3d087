"""The meter's files: exact over kills, full disks, days and replicas."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raypath.components.serving.metering import usage
from raypath.components.serving.metering.holder import AccessError, Key
from raypath.components.serving.metering.usage import Usage, UsageMeter, compact, read_usage

ROOT = Path(__file__).parents[3]
DAY = 86_400
NOW = 1_795_392_030.0
"""2026-11-23 00:00:30 UTC."""


def _key(id: str = "a1", **fields: Any) -> Key:
    return Key(id=id, name=f"name of {id}", digest="0" * 64, created=datetime.now(UTC), **fields)


def _count(meter: UsageMeter, requests: int = 1, now: float = NOW, key: Key | None = None) -> None:
    for _ in range(requests):
        meter.record(key or _key(price_per_1k_tokens=1.0), Usage(10, 0.25, "reviews/1"), 200, now)


def _counted(folder: Path) -> int:
    return sum(row.sums.requests for row in read_usage(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


@pytest.fixture(scope="module")
def children() -> Any:
    """Processes that fork from one which has Arrow already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pyarrow.parquet", "raypath.components.serving.metering.usage"])
    return context


def test_a_row_a_key_and_minute_by_key_day_and_model(tmp_path: Path) -> None:
    meter = UsageMeter(tmp_path / "usage", "replica#1/x", period=600)
    _count(meter, 3)
    _count(meter, 2, NOW + 60)
    _count(meter, 1, NOW - 60, _key("b2"))
    meter.record(_key("b2"), Usage(7), 500, NOW)
    assert meter.close()
    files = _files(tmp_path / "usage")
    assert [file.name[:10] for file in files] == ["2026-11-22", "2026-11-23"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    first, second = read_usage(tmp_path / "usage")
    assert (first.what, first.name, first.sums.requests, first.sums.tokens) == ("a1", "name of a1", 5, 50)
    assert (first.sums.compute_seconds, first.sums.price) == (1.25, pytest.approx(0.05))
    assert (second.what, second.sums.requests, second.sums.errors, second.sums.price) == ("b2", 2, 1, 0.0)
    days = [(row.what, row.sums.requests) for row in read_usage(tmp_path / "usage", by="day")]
    assert days == [("2026-11-22", 1), ("2026-11-23", 6)]
    models = [(row.what, row.sums.requests) for row in read_usage(tmp_path / "usage", by="model")]
    assert models == [("", 1), ("reviews/1", 6)]
    since = datetime.fromtimestamp(NOW, UTC)
    part = read_usage(tmp_path / "usage", since.replace(second=0), since + timedelta(seconds=30))
    assert [row.sums.requests for row in part] == [3, 1]


def test_after_december_comes_january() -> None:
    december, ends = usage._month(datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp())
    assert (str(december), ends) == ("2026-12-01", datetime(2027, 1, 1, tzinfo=UTC).timestamp())


def test_columns_are_as_promised(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    meter = UsageMeter(tmp_path, "r0", period=600)
    _count(meter)
    meter.close()
    (file,) = _files(tmp_path)
    schema = pq.read_schema(file)
    assert schema.names == [
        "key",
        "name",
        "model",
        "minute",
        "requests",
        "rejected",
        "errors",
        "tokens",
        "compute_seconds",
        "price",
        "generated_tokens",
        "cached_tokens",
        "tenant",
    ]
    assert str(schema.field("minute").type) == "timestamp[ms, tz=UTC]"
    assert pq.read_table(file)["minute"].to_pylist() == [datetime(2026, 11, 23, tzinfo=UTC)]


def test_a_full_disk_fails_no_request_and_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = UsageMeter(tmp_path, "r0", period=600)
    _count(meter, 3)
    full = [True]
    plain = os.replace

    def replace(*args: Any) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        plain(*args)

    monkeypatch.setattr(os, "replace", replace)
    assert not meter.flush()
    _count(meter, 4)
    assert not meter.flush()
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".parquet"]
    full[0] = False
    _count(meter, 5)
    assert meter.close()
    assert _counted(tmp_path) == 12


def test_the_thread_flushes_by_itself(tmp_path: Path) -> None:
    meter = UsageMeter(tmp_path, "r0", period=0.02)
    _count(meter)
    deadline = time.monotonic() + 5
    while not _counted(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    meter.close()


def test_the_end_of_the_process_flushes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from raypath.components.serving.metering.usage import UsageMeter;"
        "UsageMeter(Path(sys.argv[1]), 'r0', period=600).record_rejected(None, 1e9)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert [row.sums.rejected for row in read_usage(tmp_path)] == [1]


def test_replicas_learn_from_each_other(tmp_path: Path) -> None:
    key, now = _key(quota_requests=10), time.time()
    one, two = (UsageMeter(tmp_path, name, period=600) for name in ("r0", "r1"))
    for _ in range(6):
        one.admit(key, now)
    _count(one, 6, now, key)
    assert one.flush()
    for _ in range(3):
        two._read_back()
    for _ in range(4):
        two.admit(key, now)
    with pytest.raises(AccessError, match="10 requests"):
        two.admit(key, now)
    one._read_back()
    one.admit(key, now)  # its own file is not counted twice
    one.close()
    two.close()


def test_compaction_leaves_one_file_a_day_and_takes_late_ones_in(tmp_path: Path) -> None:
    for n in range(6):
        meter = UsageMeter(tmp_path, f"r{n}", period=600)
        _count(meter, n + 1, NOW + (n % 2) * DAY)
        meter.close()
    before = read_usage(tmp_path, by="day")
    assert compact(tmp_path) == 0  # too fresh
    assert compact(tmp_path, min_age=-1) == 6
    assert [file.name[10:15] for file in _files(tmp_path)] == [".day.", ".day."]
    assert read_usage(tmp_path, by="day") == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in _files(tmp_path)} == {0o600}
    assert compact(tmp_path, min_age=-1) == 0
    late = UsageMeter(tmp_path, "late", period=600)
    _count(late, 100)
    late.close()
    assert compact(tmp_path, min_age=-1) == 2
    assert _counted(tmp_path) == 121
    assert len(_files(tmp_path)) == 2


def _dying(when: int, work: Callable[[], Any]) -> bool:
    """Do the work, and die by SIGKILL before the given operation on files; whether it came to its end."""
    left = [when]

    def deadly(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return plain(*args, **named)

        return call

    os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)
    Path.unlink = deadly(Path.unlink)  # type: ignore[method-assign]
    work()
    return True


def _compact(folder: Path, when: int) -> None:
    _dying(when, lambda: compact(folder, min_age=-1))


def _flush(folder: Path, when: int) -> None:
    meter = UsageMeter(folder, "r0", period=600)
    _count(meter, 1, NOW)
    _count(meter, 2, NOW + DAY)
    _dying(when, meter.flush)


def test_files_of_an_earlier_raypath_are_read_and_compacted_with_later_ones(tmp_path: Path) -> None:
    """They name a column `refused`."""
    import pyarrow.parquet as pq

    meter = UsageMeter(tmp_path, "r0", period=600)
    _count(meter, 2)
    meter.record_rejected(None, NOW)
    meter.close()
    [file] = _files(tmp_path)
    table = pq.read_table(file)
    old = ["refused" if name == "rejected" else name for name in table.column_names]
    pq.write_table(table.rename_columns(old), file)
    later = UsageMeter(tmp_path, "r1", period=600)
    _count(later, 3)
    later.close()
    assert (_counted(tmp_path), sum(row.sums.rejected for row in read_usage(tmp_path))) == (5, 1)
    assert compact(tmp_path, min_age=-1) == 2
    assert (_counted(tmp_path), sum(row.sums.rejected for row in read_usage(tmp_path))) == (5, 1)


def test_killed_at_any_point_of_a_compaction(tmp_path: Path, children: Any) -> None:
    for point in range(40):
        for n in range(4):
            meter = UsageMeter(tmp_path, f"r{n}", period=600)
            _count(meter, 1, NOW + n % 2 * DAY)
            meter.close()
        child = children.Process(target=_compact, args=(tmp_path, point))
        child.start()
        child.join()
        assert _counted(tmp_path) == 4 * point + 4, f"killed before operation {point}"
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert 6 < point < 39
    compact(tmp_path, min_age=-1)
    assert _counted(tmp_path) == 4 * point + 4
    assert len(_files(tmp_path)) == 2


def test_killed_at_any_point_of_a_flush(tmp_path: Path, children: Any) -> None:
    kept = []
    for point in range(5):
        child = children.Process(target=_flush, args=(tmp_path / str(point), point))
        child.start()
        child.join()
        assert child.exitcode == (0 if point == 4 else -signal.SIGKILL)
        kept.append(_counted(tmp_path / str(point)))
    assert kept == [0, 0, 1, 1, 3]


def _busy(folder: Path, notes: Path) -> None:
    """Count, flush and compact for ever, noting how far it came before and after each flush."""
    meter = UsageMeter(folder, "r0", period=600)
    with open(notes, "ab", buffering=0) as file:  # on the disk before the flush that it tells of
        while True:
            _count(meter, 3)
            file.write(b"3 ")
            assert meter.flush()
            file.write(b"0\n")
            compact(folder, min_age=-1)


def test_killed_at_random(tmp_path: Path, children: Any) -> None:
    chance = random.Random(0)
    folder, notes, least, most = tmp_path / "usage", tmp_path / "notes", 0, 0
    for _ in range(8):
        notes.write_text("")
        child = children.Process(target=_busy, args=(folder, notes))
        child.start()
        while not notes.stat().st_size:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        lines = notes.read_text().splitlines()
        least += 3 * sum(line.endswith("0") for line in lines)
        most += 3 * len(lines)
        assert least <= _counted(folder) <= most
        least = most = _counted(folder)
    assert most > 24
