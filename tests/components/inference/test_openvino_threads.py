"""The first calls of OpenVINO in several threads at the same time."""

import importlib.util
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading, time

sys.modules["openvino_telemetry"] = None
import openvino

from raypath.components.inference.backends.openvino_runtime import import_openvino


def child():
    found = import_openvino()
    sys.setswitchinterval(1e-6)
    barrier = threading.Barrier(6)

    def convert():
        barrier.wait()
        found.Type.i64.to_dtype()  # as each inference does

    threads = [threading.Thread(target=convert) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)


for number in range(30):
    pid = os.fork()
    if pid == 0:
        child()
    end = time.monotonic() + 20
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"process {number} waits for ever")
        time.sleep(0.002)
"""


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed")
def test_the_first_calls_of_several_threads_do_not_wait_for_each_other() -> None:
    # Without the first call in import_openvino a fifth of the processes hangs, or more.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
