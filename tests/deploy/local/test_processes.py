"""Processes of the services: those that are found, what they listen at, the memory they take; of this process alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from raypath.deploy.local import processes
from raypath.deploy.local.processes import MARK, Process
from tests.waiting import until


def _service(**changes: Any) -> Process:
    own = psutil.Process()
    return Process(**{"pid": own.pid, "create_time": own.create_time(), "address": "", "log": Path("log"), **changes})


def test_a_process_is_known_by_its_time_or_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process()
    for seconds, mark, found in (
        (0.0, "", True),
        (1.9, "", True),
        (-2.1, "", False),
        (9.0, "m", True),
        (9.0, "n", False),
    ):
        monkeypatch.setattr(psutil.Process, "environ", lambda _: {MARK: "m"})
        service = _service(create_time=own.create_time() + seconds, mark=mark)
        assert (processes.find(service) is not None) is found
    assert processes.find(_service(pid=2**22 + 1)) is None


class _Gone:
    """A process that ended, or that belongs to somebody else."""

    def __init__(self, error: type[psutil.Error]) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any) -> None:
            raise self.error(7)

        return fail


@pytest.mark.parametrize("error", [psutil.NoSuchProcess, psutil.AccessDenied])
def test_processes_that_are_gone_or_closed_count_for_nothing(error: type[psutil.Error]) -> None:
    gone: Any = _Gone(error)
    processes._signal([gone], 15)
    assert not processes.listens(gone, 80)
    assert processes._memory(gone) == processes.memory_mib([gone]) == 0
    assert not processes._belongs(gone, "m", 1)
    if error is psutil.NoSuchProcess:
        assert processes.lives(gone) is False
    else:
        assert processes._carries(gone, "m") is False


@pytest.mark.parametrize(("polls", "slept"), [(0, 0), (2, 2), (99, 5)])
def test_the_end_of_processes_is_waited_for(polls: int, slept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses, left = [100.0], [], [polls]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    def lives(process: Any) -> bool:
        left[0] -= 1
        return left[0] >= 0

    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(processes, "lives", lives)
    processes._await([psutil.Process()], 0.09)
    assert pauses == [0.02] * slept


def test_a_service_has_time_to_end(tmp_path: Path) -> None:
    """It is asked first, and killed after that time alone."""
    (tmp_path / "slow.py").write_text(
        "import signal, sys, time\n"
        "def end(*_):\n    time.sleep(0.3)\n    print('ended well', flush=True)\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    log = tmp_path / "log"
    pid, started = processes.spawn("slow", [], {**os.environ, "PYTHONPATH": str(tmp_path), MARK: tmp_path.name}, log)
    until(lambda: log.exists() and "ready" in log.read_text())
    service = Process(pid=pid, create_time=started, address="", log=log, mark=tmp_path.name)
    assert processes.stop(service, grace_s=20) == 1
    assert log.read_text() == "ready\nended well\n"


def test_memory_is_that_of_shared_pages_once() -> None:
    def process(**sizes: int) -> Any:
        return SimpleNamespace(memory_full_info=lambda: SimpleNamespace(**sizes))

    assert processes.memory_mib([process(pss=3 << 20, uss=9 << 20), process(uss=(2 << 20) + 600_000)]) == 6
    assert processes.memory_mib([]) == 0


def test_a_port_is_that_of_the_process_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            other = client.getsockname()[1]
            assert processes.listens(psutil.Process(), port)
            assert not processes.listens(psutil.Process(), other), "it is connected, and does not listen"
    assert not processes.listens(psutil.Process(), port)


def test_who_belongs_to_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def process(**facts: Any) -> Any:
        usual = {"uid": os.getuid(), "mark": "", "name": "ray::IDLE", "status": "running", "pid": os.getpid()}
        each = {**usual, **facts}
        return SimpleNamespace(
            uids=lambda: SimpleNamespace(real=each["uid"]),
            environ=lambda: {MARK: each["mark"]},
            name=lambda: each["name"],
            status=lambda: each["status"],
            is_running=lambda: True,
            pid=each["pid"],
        )

    session = 4711  # that of this process may be 0, as in a container whose first process is outside
    monkeypatch.setattr(os, "getsid", lambda pid: session)
    assert processes._belongs(process(mark="m", name="other"), "m", 0)
    assert processes._belongs(process(), "m", session)
    for facts, mark, number in (
        ({"uid": os.getuid() + 1, "mark": "m"}, "m", session),
        ({"status": psutil.STATUS_ZOMBIE, "mark": "m"}, "m", session),
        ({"name": "python"}, "m", session),
        ({}, "m", 0),
        ({}, "m", session + 1),
        ({"name": "python"}, "", 0),
    ):
        assert not processes._belongs(process(**facts), mark, number), facts


def test_a_log_is_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    (tmp_path / "said.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ.get('A'), os.getsid(0) == os.getpid())"
    )
    for number in range(2):
        env = {**os.environ, "PYTHONPATH": str(tmp_path), "A": "b"}
        pid, started = processes.spawn("said", [str(number)], env, log)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert started > 0
    assert log.read_text() == "['1'] b True\n"
    assert (tmp_path / "service.previous.log").read_text() == "['0'] b True\n"
    assert log.stat().st_mode & 0o777 == 0o600
