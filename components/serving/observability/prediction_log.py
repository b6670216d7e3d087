"""What was predicted, kept for those who look for drift: Parquet files in a folder, readable by their owner alone.

    2026-11-24.<model>.v<version>.<replica>.<number>.parquet

Each row is one text of a request: time, request_id, model, version, role, place (of the text in its request),
latency_ms, what the task predicts (predicted, score, scores), and only where it was asked for the text itself. The
first columns are the same for every task. Nobody removes the files but you.

A request is drawn by chance and noted by reference; a thread makes columns of it and writes them. Memory is bounded:
what comes on top, while the disk is slow or full, is dropped and counted.
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
from raypath.components.core.files import new_file
from raypath.components.serving.metering.usage_files import warm

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel

AGED = 3_600.0
"""Seconds after which a half-written file is nobody's."""
_ROW = 200
"""Bytes that a noted row takes beside its answer and its text."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedRequest:
    """One request's answers."""

    at: float
    id: str
    model: LoadedModel
    role: str
    decoded: Array
    texts: Sequence[str] | None
    ms: float

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        texts = 4 * sum(map(len, self.texts)) if self.texts is not None else 0
        return len(self.decoded) * _ROW + self.decoded.nbytes + texts


class PredictionLog:
    """The log of one replica. Its thread begins with the first request; `close` it, or the end of the process does.

    share: of the requests; texts: keep them too; period: seconds between two files; room: bytes that may wait; count:
    told of rows `kept` and `dropped`.
    """

    def __init__(
        self,
        folder: Path,
        replica: str,
        share: float = 1.0,
        texts: bool = False,
        period: float = 60.0,
        room: int = 16 << 20,
        count: Callable[[str, int], object] | None = None,
    ) -> None:
        warm()
        self.folder, self.share, self.texts, self.period, self.room = folder, share, texts, period, room
        self.kept = self.dropped = 0
        """Rows written, and rows that there was no room for."""
        self._count = count or (lambda _what, _rows: None)
        self._mine = f"{_plain(replica)}-{secrets.token_hex(4)}"
        self._files = itertools.count()
        self._waiting: list[LoggedRequest] = []
        self._size = 0
        self._noting, self._writing = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def note(
        self,
        model: LoadedModel,
        decoded: Array,
        texts: Sequence[str],
        *,
        id: str = "",
        role: str = "main",
        ms: float = 0.0,
        drawn: bool = False,
    ) -> bool:
        """Keep a request's answers, [N, K] as decoded, if it is drawn; whether it is. Costs microseconds.

        drawn: it was drawn already, as for the answers of a shadow to the same request.
        """
        if not drawn and self.share < 1 and random.random() >= self.share:
            return False
        new = LoggedRequest(time.time(), id, model, role, decoded, texts if self.texts else None, ms)
        size = new.size
        with self._noting:
            if full := self._size + size > self.room:
                self.dropped += len(decoded)
            else:
                self._waiting.append(new)
                self._size += size
                self._begin()
            if self._size > self.room // 2:
                self._wake.set()
        if full:
            self._count("dropped", len(decoded))
        return not full

    def flush(self) -> bool:
        """Write what waits; whether nothing waits any more. What the disk refuses stays. Raises nothing."""
        with self._writing:
            groups: dict[tuple[str, str, int], list[LoggedRequest]] = defaultdict(list)
            for one in list(self._waiting):
                groups[_day(one.at), one.model.name, one.model.version].append(one)
            written = [self._write(*group, part) for group, part in groups.items()]
        return all(written)

    def close(self) -> bool:
        """End the thread and write a last time; whether all lies on the disk."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        atexit.unregister(self.close)
        return self.flush()

    def _write(self, day: str, name: str, version: int, part: list[LoggedRequest]) -> bool:
        what, file = "kept", f"{day}.{_plain(name)}.v{version}.{self._mine}.{next(self._files)}.parquet"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(self.folder / file, table(part))
        except OSError as error:
            _log.warning("predictions could not be written and wait: %s", error.strerror)
            return False
        except Exception as error:  # noqa: BLE001 - rows that make no table would be in the way of all others
            _log.warning("predictions could not be kept: %s", type(error).__name__)
            what = "dropped"
        self._settle(part, what)
        return True

    def _settle(self, part: list[LoggedRequest], what: str) -> None:
        done, rows = set(map(id, part)), sum(len(one.decoded) for one in part)
        with self._noting:
            self._waiting = [one for one in self._waiting if id(one) not in done]
            self._size = sum(one.size for one in self._waiting)
            self.kept += rows if what == "kept" else 0
            self.dropped += rows if what == "dropped" else 0
        self._count(what, rows)

    def _begin(self) -> None:
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


def table(part: Sequence[LoggedRequest]) -> Any:
    """Requests to one version as rows."""
    import pyarrow as pa

    sizes = [len(one.decoded) for one in part]
    each = np.repeat(np.arange(len(part)), sizes)

    def spread(values: list[Any], kind: Any) -> Any:
        return pa.array(values, kind).take(pa.array(each))

    columns = {
        "time": spread([int(one.at * 1000) for one in part], pa.int64()).cast(pa.timestamp("ms", "UTC")),
        "request_id": spread([one.id for one in part], pa.string()),
        "model": spread([one.model.name for one in part], pa.string()),
        "version": spread([one.model.version for one in part], pa.int32()),
        "role": spread([one.role for one in part], pa.string()),
        "place": pa.array(np.concatenate([np.arange(size) for size in sizes]), pa.int32()),
        "latency_ms": spread([one.ms for one in part], pa.float32()),
        **part[0].model.task.columns(np.concatenate([one.decoded for one in part])),
    }
    if part[0].texts is not None:
        columns["text"] = pa.array([text for one in part for text in one.texts or ()], pa.string())
    return pa.table(columns)


def write(path: Path, rows: Any) -> None:
    """Write a file so that it appears whole, mode 0600. Raises OSError; then there is none."""
    import pyarrow.parquet as pq

    with new_file(path, path.with_name(f".{path.name}")) as file:
        pq.write_table(rows, file, compression="zstd")


def sweep(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for path in folder.glob(".*.parquet"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - AGED:
                path.unlink()


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:80]
