"""The home folder of a project, and the state of the calling process that a run changes for its own time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def home_folder(home: str | Path | None = None) -> Path:
    """Return the folder that keeps everything of a project: `home`, else $RAYPATH_HOME, else .raypath here."""
    return Path(home or os.environ.get("RAYPATH_HOME") or ".raypath").expanduser().resolve()


def registry_uri(home: Path) -> str:
    """Return the URL of the model registry: $RAYPATH_REGISTRY, such as a cluster's, else that of the home, started."""
    from raypath.deploy.local.services import tracking_uri

    return os.environ.get("RAYPATH_REGISTRY") or tracking_uri(home)


class _Calls:
    """Calls in progress in all threads: the first one changes the process, the last one restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._umask = 0
        self._connected = False

    def begin(self) -> None:
        with self._lock:
            if self._count == 0:
                self._umask, self._connected = os.umask(0o077), _is_connected()
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count:
                return
            os.umask(self._umask)
            if not self._connected and _is_connected():
                import ray

                ray.shutdown()


_calls = _Calls()


@contextmanager
def private_process() -> Iterator[None]:
    """Write files for their owner alone, as the command line does. Afterwards umask and SIGTERM are as before.

    A connection to Ray that the call opened is closed: Ray ends a process that stays connected to a head that stopped.
    """
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if in_main else None
    _calls.begin()
    try:
        yield
    finally:
        if in_main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
        _calls.end()


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
