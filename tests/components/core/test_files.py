"""Files and locks that a kill leaves whole."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raypath.components.core.files import locked

HOLDS = """
import sys, time
from pathlib import Path
from raypath.components.core.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_had_by_one_shared_by_readers_and_falls_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lock"
    now = fcntl.LOCK_EX | fcntl.LOCK_NB
    command = [sys.executable, "-c", HOLDS, str(file)]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with locked(file, now) as held:
            assert not held
        with locked(file, fcntl.LOCK_SH | fcntl.LOCK_NB) as held:
            assert not held
        other.send_signal(signal.SIGKILL)
    with locked(file, fcntl.LOCK_SH) as first, locked(file, fcntl.LOCK_SH) as second, locked(file, now) as alone:
        assert (first, second, alone) == (True, True, False)
    with pytest.raises(BlockingIOError), locked(file, now):
        raise BlockingIOError  # what goes wrong inside comes out as itself
    with locked(file, now) as held:
        assert held
    assert file.stat().st_mode & 0o777 == 0o600
