"""A home's Ray head whose workers are forked: raypath.deploy.local.ray_head, started by `forked_heads`."""

import os
import sys

import pytest

from raypath.deploy.execution.process import configure_process
from raypath.deploy.local import ray_head
from tests.fork_server.start import ROOT, fork_workers


def main() -> None:
    """Run the head. The folder of these tests is on its search path only; workers do not inherit it."""
    os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].removesuffix(f"{os.pathsep}{ROOT}")
    sys.path.remove(str(ROOT))
    configure_process()
    fork_workers(pytest.MonkeyPatch())
    ray_head.main()


if __name__ == "__main__":
    main()
