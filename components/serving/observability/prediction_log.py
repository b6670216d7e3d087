"""Prediction log, for drift detection: Parquet files in a folder, readable by their owner only.

    2026-11-24.<model>.v<version>.<replica>.<number>.parquet

Each row is one text of a request: time, request_id, model, version, role, text_index (in its request), latency_ms, the
task's columns (predicted, score, scores), and the text if enabled. The first columns are the same for every task. Files
are never deleted.

Requests are sampled at random and queued by reference; a thread converts and writes them. Memory is bounded: while the
disk is slow or full, further rows are dropped and counted.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import random
import re
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.encryption.parquet import write_parquet
from raypath.components.encryption.subjects import seal_rows
from raypath.components.encryption.vault import vault_for
from raypath.components.serving.metering.usage_files import preload_parquet

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel

ABANDONED_SECONDS = 3_600.0
"""Age in seconds from which a temporary file counts as left behind by a crash."""
PLAIN_COLUMNS = frozenset(("time", "request_id", "model", "version", "role", "text_index", "latency_ms"))
"""Columns that are not sealed under a subject's key; they are encrypted with their file."""
_ROW = 200
"""Bytes of a queued row, without its outputs and its text."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedRequest:
    """Predictions of one request."""

    at: float
    id: str
    model: LoadedModel
    role: str
    decoded: Array
    texts: Sequence[str] | None
    ms: float
    subject: str = ""

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        texts = 4 * sum(map(len, self.texts)) if self.texts is not None else 0
        return len(self.decoded) * _ROW + self.decoded.nbytes + texts


class PredictionLog:
    """Prediction log of one replica. Its thread starts with the first request and ends with `close` or the process.

    Args:
        share: Share of the requests to log.
        texts: Log their texts too.
        period: Seconds between two files.
        max_bytes: Bytes that may be queued.
        count: Called with `logged` or `dropped` and the number of rows.
    """

    def __init__(
        self,
        folder: Path,
        replica: str,
        share: float = 1.0,
        texts: bool = False,
        period: float = 60.0,
        max_bytes: int = 16 << 20,
        count: Callable[[str, int], object] | None = None,
    ) -> None:
        preload_parquet()
        self.folder, self.share, self.texts, self.period, self.max_bytes = folder, share, texts, period, max_bytes
        self.logged = self.dropped = 0
        """Rows written, and rows dropped because the queue was full."""
        self._count = count or (lambda _what, _rows: None)
        self._suffix = f"{_plain(replica)}-{secrets.token_hex(4)}"
        self._files = itertools.count()
        self._waiting: list[LoggedRequest] = []
        self._size = 0
        self._lock, self._write_lock = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(
        self,
        model: LoadedModel,
        decoded: Array,
        texts: Sequence[str],
        *,
        id: str = "",
        role: str = "main",
        ms: float = 0.0,
        sampled: bool = False,
        subject: str = "",
    ) -> bool:
        """Queue a request's decoded outputs, [N, K], if it is sampled; returns True if it is. Costs microseconds.

        sampled: The request was sampled already, as for a shadow's predictions.
        subject: Person whom the request is about; the rows of an encrypted home are then under this person's key.
        """
        if not sampled and self.share < 1 and random.random() >= self.share:
            return False
        new = LoggedRequest(time.time(), id, model, role, decoded, texts if self.texts else None, ms, subject)
        size = new.size
        with self._lock:
            if full := self._size + size > self.max_bytes:
                self.dropped += len(decoded)
            else:
                self._waiting.append(new)
                self._size += size
                self._start_thread()
            if self._size > self.max_bytes // 2:
                self._wake.set()
        if full:
            self._count("dropped", len(decoded))
        return not full

    def flush(self) -> bool:
        """Write the queued rows; returns False if some could not be written and stay queued. Raises nothing."""
        with self._write_lock:
            groups: dict[tuple[str, str, int], list[LoggedRequest]] = defaultdict(list)
            for one in list(self._waiting):
                groups[_day(one.at), one.model.name, one.model.version].append(one)
            written = [self._write(*key, group) for key, group in groups.items()]
        return all(written)

    def close(self) -> bool:
        """Stop the thread and flush; returns True if everything is on disk."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        atexit.unregister(self.close)
        return self.flush()

    def _write(self, day: str, name: str, version: int, group: list[LoggedRequest]) -> bool:
        outcome, file = "logged", f"{day}.{_plain(name)}.v{version}.{self._suffix}.{next(self._files)}.parquet"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.folder / file
            write_parquet(path, _sealed(path, group), path.with_name(f".{file}"))
        except OSError as error:
            _log.warning("predictions could not be written and stay queued: %s", error.strerror)
            return False
        except Exception as error:  # noqa: BLE001 - rows that cannot be converted must not block the others
            _log.warning("predictions were dropped: %s", type(error).__name__)
            outcome = "dropped"
        self._finish(group, outcome)
        return True

    def _finish(self, group: list[LoggedRequest], outcome: str) -> None:
        done, rows = set(map(id, group)), sum(len(one.decoded) for one in group)
        with self._lock:
            self._waiting = [one for one in self._waiting if id(one) not in done]
            self._size = sum(one.size for one in self._waiting)
            self.logged += rows if outcome == "logged" else 0
            self.dropped += rows if outcome == "dropped" else 0
        self._count(outcome, rows)

    def _start_thread(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="predictions", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def _run(self) -> None:
        sweep(self.folder)
        while not self._closed:
            self._wake.wait(self.period)
            self._wake.clear()
            if not self.flush():
                time.sleep(min(self.period, 1.0))


def table(group: Sequence[LoggedRequest]) -> Any:
    """Convert requests to one version to a table."""
    import pyarrow as pa

    sizes = [len(one.decoded) for one in group]
    each = np.repeat(np.arange(len(group)), sizes)

    def spread(values: list[Any], kind: Any) -> Any:
        return pa.array(values, kind).take(pa.array(each))

    columns = {
        "time": spread([int(one.at * 1000) for one in group], pa.int64()).cast(pa.timestamp("ms", "UTC")),
        "request_id": spread([one.id for one in group], pa.string()),
        "model": spread([one.model.name for one in group], pa.string()),
        "version": spread([one.model.version for one in group], pa.int32()),
        "role": spread([one.role for one in group], pa.string()),
        "text_index": pa.array(np.concatenate([np.arange(size) for size in sizes]), pa.int32()),
        "latency_ms": spread([one.ms for one in group], pa.float32()),
        **group[0].model.task.columns(np.concatenate([one.decoded for one in group])),
    }
    if group[0].texts is not None:
        columns["text"] = pa.array([text for one in group for text in one.texts or ()], pa.string())
    return pa.table(columns)


def _sealed(path: Path, group: Sequence[LoggedRequest]) -> Any:
    """Convert requests to a table whose rows of subjects are sealed, if the home is encrypted."""
    rows, vault = table(group), vault_for(path)
    if vault is None:
        return rows
    subjects = [one.subject for one in group for _ in range(len(one.decoded))]
    return seal_rows(vault, rows, subjects, [name for name in rows.column_names if name not in PLAIN_COLUMNS])


def sweep(folder: Path) -> None:
    """Remove temporary files that a crash left behind."""
    for path in folder.glob(".*.parquet"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink()


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:80]
