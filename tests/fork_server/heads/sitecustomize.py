"""Have the Ray head of a home fork its workers, where this folder is in PYTHONPATH: Python imports this file itself."""

import os
import sys
from pathlib import Path
from typing import Any

CLIENT = str(Path(__file__).parents[1] / "client.py")
PROGRAM = "RAYPATH_TESTS_WORKER"
"""Variable with the path of Ray's default_worker.py, whose place client.py takes."""
SETUP = "RAYPATH_TESTS_SETUP_WORKER"
"""Variable with the path of Ray's setup_worker.py, whose place the file beside this one takes."""
HEAD = "raypath.deploy.local.ray_head"


def with_client(complete: Any) -> Any:
    """Wrap `RayParams.update_if_absent`, by which a node that starts gets the path of its workers' program."""

    def update(params: Any, **values: Any) -> None:
        if worker := values.get("worker_path"):
            values["worker_path"], os.environ[PROGRAM] = CLIENT, worker
            setup = values["setup_worker_path"]
            values["setup_worker_path"], os.environ[SETUP] = str(Path(__file__).with_name("setup_worker.py")), setup
        complete(params, **values)

    return update


if HEAD in sys.orig_argv:
    from ray._private import parameter

    parameter.RayParams.update_if_absent = with_client(parameter.RayParams.update_if_absent)
