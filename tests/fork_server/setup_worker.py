"""Ray's setup_worker.py where workers are forked: set the variables of a runtime environment, without importing Ray.

Ray runs it, by this name, before client.py for the workers of a runtime environment.
"""

import argparse
import json
import os
import runpy
import sys
from pathlib import Path

SETUP = "RAYPATH_TESTS_SETUP_WORKER"
"""Variable with the path of Ray's own."""


def main() -> None:
    """Run the worker with the variables; Ray's own program does what is more than that."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    args, worker = parser.parse_known_args()
    context = json.loads(args.serialized_runtime_env_context)
    variables = context.get("env_vars", {})
    more = any(context.get(name) for name in ("command_prefix", "override_worker_entrypoint"))
    if more or context.get("py_executable", sys.executable) != sys.executable or "$" in "".join(variables.values()):
        os.execv(sys.executable, [sys.executable, os.environ[SETUP], *sys.argv[1:]])
    os.environ.update(variables)
    sys.argv = worker
    sys.path[0] = str(Path(worker[0]).parent)
    runpy.run_path(worker[0], run_name="__main__")


if __name__ == "__main__":
    main()
