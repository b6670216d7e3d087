"""The server: `python -m tests.fork_server.server SOCKET MODULE...` imports modules and forks programs.

It ends with its standard input, and kills the programs that still run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """Forks for the programs of clients, and what became of each."""

    listener: socket.socket
    events: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    programs: dict[int, tuple[socket.socket, int]] = field(default_factory=dict)
    """The client's connection and the file descriptor of the process, by process id."""

    def serve(self) -> dict[str, Any] | None:
        """Fork until stdin ends; returns the job to do in a process that was forked, else None."""
        self.events.register(self.listener, selectors.EVENT_READ, None)
        self.events.register(0, selectors.EVENT_READ, None)
        while True:
            for key, _ in self.events.select():
                if key.fileobj == 0:
                    return self._end()
                if key.fileobj is self.listener:
                    if (job := self._accept()) is not None:
                        return job
                elif key.data in self.programs:  # else it has ended in this round
                    self._forward(key.data) if isinstance(key.fileobj, socket.socket) else self._ended(key.data)

    def _accept(self) -> dict[str, Any] | None:
        client, _ = self.listener.accept()
        try:
            size, files, _, _ = socket.recv_fds(client, 4, 3)
            job: dict[str, Any] = json.loads(_exactly(client, int.from_bytes(size, "big")))
        except (OSError, ValueError):  # it was killed meanwhile
            client.close()
            return None
        pid = os.fork()
        if pid == 0:
            client.close()
            self._leave(files)
            return job
        for number in files:
            os.close(number)
        process = os.pidfd_open(pid)
        self.programs[pid] = client, process
        self.events.register(client, selectors.EVENT_READ, pid)
        self.events.register(process, selectors.EVENT_READ, pid)
        return None

    def _leave(self, files: list[int]) -> None:
        """Take a client's files, in a process that was forked, and close those of the server.

        A group of its own: when a worker ends, Ray kills the process group that it was in.
        """
        os.setpgid(0, 0)
        for client, process in self.programs.values():
            client.close()
            os.close(process)
        self.events.close()
        self.listener.close()
        for number, given in enumerate(files):
            os.dup2(given, number)
            os.close(given)

    def _forward(self, pid: int) -> None:
        """Send the signals that a client received; without the client the program is killed."""
        client, process = self.programs[pid]
        try:
            numbers = client.recv(16)
        except ConnectionError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            signal.pidfd_send_signal(process, number)
        if not numbers:
            self.events.unregister(client)

    def _ended(self, pid: int) -> None:
        client, process = self.programs.pop(pid)
        _, status = os.waitpid(pid, 0)
        for source in (client, process):
            if source in self.events.get_map():
                self.events.unregister(source)
        with contextlib.suppress(ConnectionError):
            client.send(str(os.waitstatus_to_exitcode(status)).encode())
        client.close()
        os.close(process)

    def _end(self) -> None:
        for _, process in self.programs.values():
            signal.pidfd_send_signal(process, signal.SIGKILL)


def _exactly(client: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        read = client.recv(size - len(found))
        if not read:
            raise ConnectionError
        found += read
    return found


def run(job: dict[str, Any]) -> None:
    """Run a program, as `python ARGS` does."""
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    if "torch" in sys.modules:
        _use_threads()
    args = job["args"]
    sys.path[:] = _search(args)
    sys.argv = args[1:] if args[0] == "-m" else args
    if args[0] == "-m":
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(args[0], run_name="__main__")


def _search(args: list[str]) -> list[str]:
    """The module search path of `python ARGS`, without the folder that the server itself was started in."""
    first = os.getcwd() if args[0] == "-m" else str(Path(args[0]).parent)
    given = os.environ.get("PYTHONPATH", "")
    return [
        *([] if os.environ.get("PYTHONSAFEPATH") else [first]),
        *(given.split(os.pathsep) if given else []),
        *(path for path in sys.path if path != str(ROOT)),
    ]


def _use_threads() -> None:
    """Have torch follow OMP_NUM_THREADS, as in a process that imports it later; Ray sets it for the first task."""
    import ray._private.utils
    import torch

    inner = ray._private.utils.set_omp_num_threads_if_unset

    def follow() -> None:
        if number := os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(int(number))

    def set_and_follow() -> bool:
        found = inner()
        if found:
            follow()
        return found

    ray._private.utils.set_omp_num_threads_if_unset = set_and_follow
    follow()


def main(path: str, modules: list[str]) -> None:
    """Import, then serve at a path."""
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    # Ray reads the environment when it is imported: each program does that itself.
    assert "ray" not in sys.modules
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        job = Server(listener).serve()
    if job is not None:
        gc.enable()
        run(job)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
