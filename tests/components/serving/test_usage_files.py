"""Files of a meter that a crash left behind."""

import os
import time
from pathlib import Path

from raypath.components.serving.metering import usage_files
from raypath.components.serving.metering.usage_files import UsageTotals, compact, live, write_rows

DAY = "2026-11-23"


def test_what_a_kill_left_half_written_is_removed_in_time(tmp_path: Path) -> None:
    """One process compacts at a time, so its file is abandoned at once; a replica may still be writing its own."""
    write_rows(tmp_path / f"{DAY}.r0.1.parquet", {("a", "a", "m", 0): UsageTotals()})
    names = {f".{DAY}.day.0123456789ab.parquet": 0.0, f".{DAY}.r0.2.parquet": 0.0, f".{DAY}.r0.3.parquet": 5.0}
    names[f".{DAY}.day.ba9876543210.parquet"] = 5.0
    for name, older in names.items():
        (tmp_path / name).write_bytes(b"PAR1")
        age = usage_files._ABANDONED_SECONDS + older if older else 60.0
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert compact(tmp_path) == 0
    assert [path.name for path in tmp_path.glob(".*.parquet")] == [f".{DAY}.r0.2.parquet"]
    assert [path.name for path in live(tmp_path)] == [f"{DAY}.r0.1.parquet"]
