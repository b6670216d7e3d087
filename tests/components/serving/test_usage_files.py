"""Files of a meter that a crash left behind."""

import os
import shutil
import time
from pathlib import Path

from raypath.components.serving.metering import usage_files
from raypath.components.serving.metering.usage_files import UsageTotals, compact, live, read_rows, write_rows

DAY = "2026-11-23"


def test_what_a_kill_left_half_written_is_removed_in_time(tmp_path: Path) -> None:
    """One process compacts at a time, so its file is abandoned at once; a replica may still be writing its own."""
    write_rows(tmp_path / f"{DAY}.r0.1.parquet", {("a", "a", "m", 0, ""): UsageTotals()})
    names = {f".{DAY}.day.0123456789ab.parquet": 0.0, f".{DAY}.r0.2.parquet": 0.0, f".{DAY}.r0.3.parquet": 5.0}
    names[f".{DAY}.day.ba9876543210.parquet"] = 5.0
    for name, older in names.items():
        (tmp_path / name).write_bytes(b"PAR1")
        age = usage_files._ABANDONED_SECONDS + older if older else 60.0
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert compact(tmp_path) == 0
    assert [path.name for path in tmp_path.glob(".*.parquet")] == [f".{DAY}.r0.2.parquet"]
    assert [path.name for path in live(tmp_path)] == [f"{DAY}.r0.1.parquet"]


def test_a_day_has_one_file_and_sources_that_a_crash_left_are_removed_uncounted(tmp_path: Path) -> None:
    def requests() -> int:
        return sum(sums.requests for path in live(tmp_path) for _, sums in read_rows(path))

    for n in range(2):
        write_rows(tmp_path / f"{DAY}.r{n}.1.parquet", {("a", "a", "m", 0, ""): UsageTotals(requests=n + 1)})
    shutil.copyfile(tmp_path / f"{DAY}.r0.1.parquet", tmp_path / "kept")
    assert compact(tmp_path, -60.0) == 2
    [day] = tmp_path.glob("*.parquet")
    assert (day.name[:15], requests()) == (f"{DAY}.day.", 3)
    assert compact(tmp_path, -60.0) == 0, "one file is left as it is"
    (tmp_path / "kept").rename(tmp_path / f"{DAY}.r0.1.parquet")
    write_rows(tmp_path / f"{DAY}.r0.2.parquet", {("a", "a", "m", 0, ""): UsageTotals(requests=4)})
    assert requests() == 7
    assert compact(tmp_path) == 0, "what was just written may get company"
    assert not (tmp_path / f"{DAY}.r0.1.parquet").exists()
    assert compact(tmp_path, -60.0) == 2
    assert (len(list(tmp_path.glob("*.parquet"))), requests()) == (1, 7)
