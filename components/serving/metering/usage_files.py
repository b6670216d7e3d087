"""Usage files: Parquet, one per flush, compacted to one per day.

    2026-11-23.<replica>.<number>.parquet   rows of one flush, of one day
    2026-11-23.day.<number>.parquet         rows of many such files, which its metadata lists: these no longer count
    .<name>                                 temporary file; never read

Files are written atomically. A crash between writing a day's file and removing its sources leaves files that are listed
as replaced: readers skip them, and the next compaction removes them. Nothing is lost or counted twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from raypath.components.core.files import locked
from raypath.components.encryption.parquet import open_parquet, write_parquet

By = Literal["key", "day", "model", "tenant"]
Kind = tuple[str, str, str, int, str]
"""Key id, key name, model, minute since 1970, tenant."""
SETTLE_SECONDS = 60.0
"""Minimum age of a file in seconds for compaction; other replicas have read it by then."""
LOCK = ".lock"
"""Lock file: shared by readers, exclusive for compaction."""
_REPLACES = b"raypath.replaces"
_ABANDONED_SECONDS = 3_600.0
"""Age in seconds from which a temporary file counts as left behind by a crash."""


@dataclass
class UsageTotals:
    """Usage totals. `requests` were admitted; `errors` are those of them with a status of 400 or more."""

    requests: int = 0
    rejected: int = 0
    errors: int = 0
    tokens: int = 0
    compute_seconds: float = 0.0
    price: float = 0.0
    generated_tokens: int = 0
    """Of `tokens`, those that language models generated."""
    cached_tokens: int = 0
    """Of `tokens`, those of prompts that came from the prefix cache."""

    def add(self, other: UsageTotals) -> None:
        """Add other totals."""
        self.requests += other.requests
        self.rejected += other.rejected
        self.errors += other.errors
        self.tokens += other.tokens
        self.compute_seconds += other.compute_seconds
        self.price += other.price
        self.generated_tokens += other.generated_tokens
        self.cached_tokens += other.cached_tokens


@dataclass(frozen=True)
class UsageRow:
    """Row of a usage report. what: a key's id, a day such as 2026-11-23, a model, or a tenant."""

    what: str
    name: str
    """Name of the key, in a report by key."""
    sums: UsageTotals


def read_usage(
    folder: Path,
    since: datetime | None = None,
    until: datetime | None = None,
    by: By = "key",
    tenant: str | None = None,
    key: str | None = None,
) -> list[UsageRow]:
    """Return the usage from `since` to before `until`, grouped and sorted. Times are timezone-aware.

    tenant: only its usage, "" for that of no tenant. key: only that of this key, by id. None: all.
    """
    first = int(since.timestamp() // 60) if since else 0
    end = until.timestamp() / 60 if until else float("inf")
    found: dict[tuple[str, str], UsageTotals] = defaultdict(UsageTotals)
    with locked(folder / LOCK, fcntl.LOCK_SH):
        for path in live(folder, since.astimezone(UTC).date() if since else date.min):
            for (id, name, model, minute, whose), sums in read_rows(path):
                if first <= minute < end and tenant in (None, whose) and key in (None, id):
                    groups = {"key": (id, name), "day": (day_of(minute), ""), "model": (model, "")}
                    found[(groups | {"tenant": (whose, "")})[by]].add(sums)
    return [UsageRow(what, name, sums) for (what, name), sums in sorted(found.items())]


def day_of(minute: int) -> str:
    """Return the UTC day of a minute in Unix time."""
    return datetime.fromtimestamp(minute * 60, UTC).date().isoformat()


_RENAMED = {"refused": "rejected"}
"""Columns of files that a Raypath of home format 1 has written."""


_LATER = ("generated_tokens", "cached_tokens")
_TENANT = "tenant"
"""Columns that older files lack."""


def live(folder: Path, since: date = date.min) -> list[Path]:
    """Return the files that count, from a day on."""
    found = sorted(path for path in folder.glob("[0-9]*.parquet") if path.name[:10] >= since.isoformat())
    gone = {name for path in found if _is_compacted(path) for name in _replaced(path)}
    return [path for path in found if path.name not in gone]


def flushed(folder: Path, since: date) -> list[Path]:
    """Return the files that replicas flushed and that are not compacted, from a day on."""
    return [path for path in live(folder, since) if not _is_compacted(path)]


def read_rows(path: Path) -> Iterator[tuple[Kind, UsageTotals]]:
    """Iterate over the rows of a file."""
    import pyarrow as pa

    table = open_parquet(path).read(use_threads=False)
    table = table.rename_columns([_RENAMED.get(name, name) for name in table.column_names])
    index = table.schema.get_field_index("minute")
    columns = table.set_column(index, "minute", table["minute"].cast(pa.int64())).to_pydict()
    columns = {name: [0] * table.num_rows for name in _LATER} | {_TENANT: [""] * table.num_rows} | columns
    for key, name, model, minute, *sums, tenant in zip(*(columns[column] for column in _columns()), strict=True):
        yield (key, name, model, minute // 60_000, tenant), UsageTotals(*sums)


def write_rows(path: Path, rows: Mapping[Kind, UsageTotals], replaces: Iterable[str] = ()) -> None:
    """Write a file atomically, with mode 0600. Raises OSError."""
    write_parquet(path, _table(rows, replaces), path.with_name(f".{path.name}"))


def preload_parquet() -> None:
    """Write a row to memory, so that Arrow's lazy imports are done: they fail while a process exits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(_table({("", "", "", 0, ""): UsageTotals()}, ()), pa.BufferOutputStream(), compression="zstd")


def compact(folder: Path, min_age: float = SETTLE_SECONDS) -> int:
    """Compact the files of each day to one; returns the number of files removed. Does nothing if another process is
    compacting."""
    with locked(folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB) as acquired:
        if not acquired:
            return 0
        _sweep(folder)
        days: dict[str, list[Path]] = defaultdict(list)
        for path in live(folder):
            if _is_compacted(path) or path.stat().st_mtime < time.time() - min_age:
                days[path.name[:10]].append(path)
        return sum(_compact_day(folder, day, paths) for day, paths in days.items() if len(paths) > 1)


def _compact_day(folder: Path, day: str, paths: list[Path]) -> int:
    rows: dict[Kind, UsageTotals] = defaultdict(UsageTotals)
    for path in paths:
        for kind, sums in read_rows(path):
            rows[kind].add(sums)
    write_rows(folder / f"{day}.day.{uuid.uuid4().hex[:12]}.parquet", rows, [path.name for path in paths])
    for path in paths:
        path.unlink()
    return len(paths)


def _sweep(folder: Path) -> None:
    """Remove what a crash left behind, before a day's file is replaced and its list of sources with it."""
    counted = set(live(folder))
    for path in folder.glob("[0-9]*.parquet"):
        if path not in counted:
            path.unlink()
    for path in folder.glob(".*.parquet"):
        with contextlib.suppress(FileNotFoundError):
            if path.name[11:16] == ".day." or path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink()


def _is_compacted(path: Path) -> bool:
    return path.name[10:15] == ".day."


def _replaced(path: Path) -> list[str]:
    found: list[str] = json.loads((open_parquet(path).schema_arrow.metadata or {}).get(_REPLACES, b"[]"))
    return found


def _columns() -> dict[str, Any]:
    import pyarrow as pa

    texts = dict.fromkeys(("key", "name", "model"), pa.string())
    counts = dict.fromkeys(("requests", "rejected", "errors", "tokens"), pa.int64())
    amounts = dict.fromkeys(("compute_seconds", "price"), pa.float64())
    later = dict.fromkeys(_LATER, pa.int64())
    return {**texts, "minute": pa.timestamp("ms", "UTC"), **counts, **amounts, **later, _TENANT: pa.string()}


def _table(rows: Mapping[Kind, UsageTotals], replaces: Iterable[str]) -> Any:
    import pyarrow as pa

    schema = pa.schema(list(_columns().items()), {_REPLACES: json.dumps(list(replaces)).encode()})
    lines = [
        (key, name, model, minute * 60_000, *astuple(sums), tenant)
        for (key, name, model, minute, tenant), sums in sorted(rows.items())
    ]
    columns = list(zip(*lines, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
