"""Driver of a run inside a Ray cluster.

    python -m raypath.deploy.ray_cluster.driver WORKFLOW [-s KEY=VALUE ...] [--fresh STEP ...] [--run ID]

In the environment: RAYPATH_HOME (a folder of the node), RAYPATH_STORE (where all nodes find artifacts),
MLFLOW_TRACKING_URI, RAYPATH_SERVE_URL, and AWS_* for a store on S3. With --run a client follows the run, and the log
has events (`raypath.deploy.remote.events`); without it, as when a schedule started the run, the log is text for people.
Exit status: 0 done, 1 platform error, 2 user error, 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from raypath.components.core.errors import RaypathError, StepFailed, UserError
from raypath.deploy.console.live_view import PlainView
from raypath.deploy.console.run_report import show_result
from raypath.deploy.console.terminal import Terminal
from raypath.deploy.execution.process import configure_process
from raypath.deploy.execution.run_history import Run
from raypath.deploy.remote.events import EventWriter, RunEnd

SUBMITTER = "RAYPATH_SUBMITTER"
"""Environment variable with the submitter's versions of Ray and Python, as JSON; "" skips the check."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a workflow on the cluster that this process is part of."""
    # Ray and MLflow read these variables when they are imported.
    configure_process(interrupt_on_sigterm=True, environment=ray_environment())
    args = _parser().parse_args(argv)
    home = Path(os.environ.get("RAYPATH_HOME") or "~/.raypath").expanduser().resolve()
    events = EventWriter(home) if args.run else LogWriter(home)
    try:
        events.end(_run(args, home, events))
    except KeyboardInterrupt:
        events.end(RunEnd())
        return 130
    except RaypathError as error:
        events.end(RunEnd.from_error(error, traceback.format_exc()))
        return error.exit_status
    except Exception as error:  # noqa: BLE001 - an unexpected error is reported like any other
        what = f"unexpected {type(error).__name__}: {error}"
        events.end(RunEnd.from_error(StepFailed(what, fix="run again with --debug"), traceback.format_exc()))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m raypath.deploy.ray_cluster.driver", description="Run a workflow inside a Ray cluster."
    )
    parser.add_argument("workflow", help="a name of `raypath list`, or package.module:function")
    parser.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--fresh", action="append", default=[], metavar="STEP", help="run this step from its beginning")
    parser.add_argument("--run", default="", metavar="ID", help="id of a run that a client follows; default a new run")
    return parser


class LogWriter(PlainView):
    """Run watcher of a driver without a client: write a log for people."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, Terminal())
        self._run: Run | None = None

    def update(self, run: Run) -> None:
        """Write what is new in this run."""
        if self._run is None:
            self._print(run.id)
        self._run = run
        super().update(run)

    def end(self, end: RunEnd) -> None:
        """Write the result or the error; an unexpected error with its traceback."""
        if end.result is not None and self._run is not None:
            return show_result(end.endpoint(), self._run, end.seconds)
        error = end.error()
        if isinstance(error, StepFailed):
            print(end.trace, file=sys.stderr)
        print(f"raypath: {error or 'stopped'}", file=sys.stderr, flush=True)


def _run(args: argparse.Namespace, home: Path, events: EventWriter | LogWriter) -> RunEnd:
    check_versions(json.loads(os.environ.get(SUBMITTER) or "{}"))
    from raypath.deploy.execution.cache_key import check_steps
    from raypath.deploy.execution.overrides import from_line
    from raypath.deploy.execution.runner import Runner
    from raypath.deploy.execution.workflow_loader import load_remote
    from raypath.deploy.ray_cluster.platform import RayClusterPlatform
    from raypath.deploy.remote.package import restore_times
    from raypath.deploy.store.factory import open_store

    restore_times(Path.cwd())
    flow = load_remote(args.workflow, "the cluster")
    graph = flow.trace(flow.params_type().override(from_line(args.settings)))
    check_steps(graph, args.fresh)
    store, started = open_store(home), time.monotonic()
    cluster = RayClusterPlatform(home, store)
    runner = Runner(graph, store, cluster, events, args.run)
    try:
        result = runner.execute(args.fresh)
    finally:
        cluster.close()
    seconds = time.monotonic() - started
    return RunEnd(result=result.model_dump(mode="json"), kind=type(result).__name__, seconds=seconds)


def ray_environment() -> dict[str, str]:
    """Environment variables for Ray and MLflow on every node."""
    from raypath.deploy.local.state import ALWAYS, ONE_MACHINE

    return {name: value for name, value in ALWAYS.items() if name not in ONE_MACHINE}


def check_versions(wanted: dict[str, str]) -> None:
    """Raise UserError unless this machine has the same Ray and Python as the submitter."""
    have = versions()
    for name, version in wanted.items():
        if have[name] != version:
            what = f"the cluster runs {name} {have[name]}, and this machine {version}"
            fix = f"install {name} {have[name]} here, or set -s ray.same_versions=false"
            raise UserError(what, fix=fix)


def versions() -> dict[str, str]:
    """Versions of Ray and of Python, the latter as major.minor."""
    from importlib.metadata import version

    return {"Ray": version("ray"), "Python": ".".join(platform.python_version_tuple()[:2])}


if __name__ == "__main__":
    sys.exit(main())
