"""The files of the meter: Parquet, one a flush, drawn together to one a day.

    2026-11-23.<replica>.<number>.parquet   rows of one flush, of one day
    2026-11-23.day.<number>.parquet         rows of many such files, which its metadata names: those count no more
    .<name>                                 half written; never read

A file appears whole, by renaming. A kill between the appearing of a day's file and the removal of what went into it
leaves files that are named as replaced: readers pass them over, and the next compaction removes them. Nothing is lost
or counted twice, whatever the moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from raypath.components.core.files import locked, new_file

By = Literal["key", "day", "model"]
Kind = tuple[str, str, str, int]
"""Key id, key name, model, minute since 1970."""
SETTLED = 60.0
"""Seconds until a file is drawn together with others; other replicas have read it by then."""
LOCK = ".lock"
"""Readers share it, whoever compacts has it alone."""
_REPLACES = b"raypath.replaces"
_AGED = 3_600.0
"""Seconds after which a half-written file is nobody's."""


@dataclass
class UsageTotals:
    """What is counted. Of the requests that were let in, errors were answered with 400 or more."""

    requests: int = 0
    rejected: int = 0
    errors: int = 0
    tokens: int = 0
    compute_seconds: float = 0.0
    price: float = 0.0

    def add(self, other: UsageTotals) -> None:
        """Count another's in."""
        self.requests += other.requests
        self.rejected += other.rejected
        self.errors += other.errors
        self.tokens += other.tokens
        self.compute_seconds += other.compute_seconds
        self.price += other.price


@dataclass(frozen=True)
class UsageRow:
    """One line of a report. what: a key's id, a day such as 2026-11-23, or a model."""

    what: str
    name: str
    """Of the key, in a report by key."""
    sums: UsageTotals


def read_usage(
    folder: Path, since: datetime | None = None, until: datetime | None = None, by: By = "key"
) -> list[UsageRow]:
    """What was used from `since` to before `until`, in order of what it is drawn up by. Times have a zone."""
    first = int(since.timestamp() // 60) if since else 0
    end = until.timestamp() / 60 if until else float("inf")
    found: dict[tuple[str, str], UsageTotals] = defaultdict(UsageTotals)
    with locked(folder / LOCK, fcntl.LOCK_SH):
        for path in live(folder, since.astimezone(UTC).date() if since else date.min):
            for (key, name, model, minute), sums in read_rows(path):
                if first <= minute < end:
                    found[{"key": (key, name), "day": (day_of(minute), ""), "model": (model, "")}[by]].add(sums)
    return [UsageRow(what, name, sums) for (what, name), sums in sorted(found.items())]


def day_of(minute: int) -> str:
    """The day of a minute since 1970, in UTC."""
    return datetime.fromtimestamp(minute * 60, UTC).date().isoformat()


def live(folder: Path, since: date = date.min) -> list[Path]:
    """The files that count, from a day on."""
    found = sorted(path for path in folder.glob("[0-9]*.parquet") if path.name[:10] >= since.isoformat())
    gone = {name for path in found if _is_drawn(path) for name in _replaced(path)}
    return [path for path in found if path.name not in gone]


def flushed(folder: Path, since: date) -> list[Path]:
    """The files as replicas wrote them, from a day on."""
    return [path for path in live(folder, since) if not _is_drawn(path)]


def read_rows(path: Path) -> Iterator[tuple[Kind, UsageTotals]]:
    """The rows of one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read(use_threads=False)
    place = table.schema.get_field_index("minute")
    columns = table.set_column(place, "minute", table["minute"].cast(pa.int64())).to_pydict()
    for key, name, model, minute, *sums in zip(*(columns[column] for column in _columns()), strict=True):
        yield (key, name, model, minute // 60_000), UsageTotals(*sums)


def write_rows(path: Path, rows: Mapping[Kind, UsageTotals], replaces: Iterable[str] = ()) -> None:
    """Write a file so that it appears whole, mode 0600. Raises OSError; then there is no new file."""
    import pyarrow.parquet as pq

    with new_file(path, path.with_name(f".{path.name}")) as file:
        pq.write_table(_table(rows, replaces), file, compression="zstd")


def warm() -> None:
    """Write a row to memory: what Arrow imports by then it could import no more at the end of a process."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(_table({("", "", "", 0): UsageTotals()}, ()), pa.BufferOutputStream(), compression="zstd")


def compact(folder: Path, settled: float = SETTLED) -> int:
    """Draw the files of each day together into one; the number of files that went. Left to whoever is at it already."""
    with locked(folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
        if not held:
            return 0
        _sweep(folder)
        days: dict[str, list[Path]] = defaultdict(list)
        for path in live(folder):
            if _is_drawn(path) or path.stat().st_mtime < time.time() - settled:
                days[path.name[:10]].append(path)
        return sum(_draw_together(folder, day, paths) for day, paths in days.items() if len(paths) > 1)


def _draw_together(folder: Path, day: str, paths: list[Path]) -> int:
    rows: dict[Kind, UsageTotals] = defaultdict(UsageTotals)
    for path in paths:
        for kind, sums in read_rows(path):
            rows[kind].add(sums)
    write_rows(folder / f"{day}.day.{uuid.uuid4().hex[:12]}.parquet", rows, [path.name for path in paths])
    for path in paths:
        path.unlink()
    return len(paths)


def _sweep(folder: Path) -> None:
    """Remove what a kill left behind. Done before a day's file is replaced in turn: its list goes with it."""
    counted = set(live(folder))
    for path in folder.glob("[0-9]*.parquet"):
        if path not in counted:
            path.unlink()
    for path in folder.glob(".*.parquet"):
        with contextlib.suppress(FileNotFoundError):
            if path.name[11:16] == ".day." or path.stat().st_mtime < time.time() - _AGED:
                path.unlink()


def _is_drawn(path: Path) -> bool:
    return path.name[10:15] == ".day."


def _replaced(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    found: list[str] = json.loads((pq.read_schema(path).metadata or {}).get(_REPLACES, b"[]"))
    return found


def _columns() -> dict[str, Any]:
    import pyarrow as pa

    texts = dict.fromkeys(("key", "name", "model"), pa.string())
    counts = dict.fromkeys(("requests", "rejected", "errors", "tokens"), pa.int64())
    figures = dict.fromkeys(("compute_seconds", "price"), pa.float64())
    return {**texts, "minute": pa.timestamp("ms", "UTC"), **counts, **figures}


def _table(rows: Mapping[Kind, UsageTotals], replaces: Iterable[str]) -> Any:
    import pyarrow as pa

    schema = pa.schema(list(_columns().items()), {_REPLACES: json.dumps(list(replaces)).encode()})
    lines = [
        (key, name, model, minute * 60_000, s.requests, s.rejected, s.errors, s.tokens, s.compute_seconds, s.price)
        for (key, name, model, minute), s in sorted(rows.items())
    ]
    columns = list(zip(*lines, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
