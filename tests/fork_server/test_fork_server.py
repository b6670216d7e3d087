"""A program that was forked ends as one of its own: output, status, signals, and its death with who asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import client
from tests.fork_server.start import fork_server


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with fork_server(["decimal"]):
        yield


def _start(folder: Path, code: str, *args: str, **variables: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(code)
    command = [sys.executable, client.__file__, str(folder / "program.py"), *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **variables}, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def test_arguments_files_and_status_are_those_of_the_client(tmp_path: Path) -> None:
    code = """
import os, sys
assert "decimal" in sys.modules
print(sys.argv[1:], os.environ["GIVEN"], os.getcwd(), sys.stdin.read(), __name__)
print("wrong", file=sys.stderr)
sys.exit(7)
"""
    process = _start(tmp_path, code, "one", "two words", GIVEN="value")
    out, err = process.communicate("input")
    assert process.returncode == 7, err
    assert out == f"['one', 'two words'] value {tmp_path} input __main__\n"
    assert err == "wrong\n"


def test_modules_are_searched_as_by_python(tmp_path: Path) -> None:
    code = "import sys\nprint(sys.path)"
    for variables in ({}, {"PYTHONPATH": "/one:/two"}, {"PYTHONSAFEPATH": "1"}):
        forked = _start(tmp_path, code, **variables).communicate()[0]
        command, env = [sys.executable, str(tmp_path / "program.py")], {**os.environ, **variables}
        assert forked == subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_a_module_is_run_and_an_exception_is_status_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, client.__file__, "-m", "timeit", "-n", "1", "pass"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout[:6]) == (0, "1 loop")
    process = _start(tmp_path, "raise ValueError('no')")
    assert process.communicate()[1].endswith("ValueError: no\n")
    assert process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_program(tmp_path: Path, number: signal.Signals) -> None:
    code = """
import signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: sys.exit(100 + number))
print("ready", flush=True)
time.sleep(60)
"""
    process = _start(tmp_path, code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 100 + number


def test_who_dies_takes_the_other_along(tmp_path: Path) -> None:
    code = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    killed, left = _start(tmp_path, code), _start(tmp_path, code)
    assert killed.stdout is not None
    assert left.stdout is not None
    program, other = int(killed.stdout.readline()), int(left.stdout.readline())
    # Ray kills the process group of a worker that has ended.
    assert (os.getpgid(program), os.getpgid(other)) == (program, other)
    killed.kill()
    killed.communicate()
    end = time.monotonic() + 20
    while Path(f"/proc/{program}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert left.poll() is None
    os.kill(other, signal.SIGKILL)
    left.communicate()
    assert left.returncode == -signal.SIGKILL


def test_a_server_that_ends_leaves_no_program(tmp_path: Path) -> None:
    before = os.environ[client.SERVER]
    with fork_server(["decimal"]):
        process = _start(tmp_path, "import time\nprint('ready', flush=True)\ntime.sleep(60)")
        assert process.stdout is not None
        process.stdout.readline()
    process.communicate()
    assert process.returncode != 0
    assert os.environ[client.SERVER] == before
