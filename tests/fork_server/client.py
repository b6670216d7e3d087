"""Have a server of forks run a Python program, as if this process did: `python client.py [-m MODULE | FILE] ARGS`.

Signals are handed on, the exit status is that of the program, and the program does not outlive this process. Nothing
but the standard library's small modules is imported.
"""

import json
import os
import signal
import socket
import sys

SERVER = "RAYPATH_TESTS_FORK_SERVER"
"""Variable with the path of the server's socket."""
PROGRAM = "RAYPATH_TESTS_WORKER"
"""Variable with the file of the program where only options are given: Ray gives those of its workers."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(args: list[str]) -> None:
    """Run a program to its end and end as it did."""
    job = json.dumps({"args": args, "env": dict(os.environ), "cwd": os.getcwd()}).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[SERVER])
        for number in FORWARDED:
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        socket.send_fds(server, [len(job).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(job)
        answer = server.recv(16)
    status = int(answer or b"1")
    if status < 0:
        if -status in FORWARDED:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    given = sys.argv[1:]
    main([os.environ[PROGRAM], *given] if given[0].startswith("--") else given)
