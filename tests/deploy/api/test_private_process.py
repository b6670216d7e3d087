"""Calls of the Python interface write files for their owner alone, and leave the process as it was."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from raypath.deploy.api.project import private_process


def _made(path: Path) -> tuple[int, int]:
    """Modes of a folder and of a file that are made now."""
    path.mkdir()
    (path / "file").touch()
    return path.stat().st_mode & 0o777, (path / "file").stat().st_mode & 0o777


def test_files_are_their_owners_alone_as_long_as_a_call_lasts(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)

    def call() -> None:
        with private_process():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            assert _made(tmp_path / "within") == (0o700, 0o600)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call()
    assert _made(tmp_path / "after") == (0o755, 0o644)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_last_of_several_calls_in_threads_restores_the_process(tmp_path: Path) -> None:
    ready, end = threading.Event(), threading.Event()

    def call() -> None:
        with private_process():
            ready.set()
            end.wait(20)

    with private_process():
        other = threading.Thread(target=call)
        other.start()
        assert ready.wait(20)
    assert _made(tmp_path / "within") == (0o700, 0o600)
    end.set()
    other.join(20)
    assert _made(tmp_path / "after") == (0o755, 0o644)
    assert os.umask(0o022) == 0o022
