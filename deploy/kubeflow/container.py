"""Command of the containers of a Kubeflow pipeline.

    python -m raypath.deploy.kubeflow.container settings|step|driver WORKFLOW ...

settings    apply the pipeline's parameters to the workflow and check that it can run
step        run one step, or reuse its record; the cache key and `run_step` are those of every launcher
driver      the same inside a RayJob that `step --ray` has created and waits for

In the environment: RAYPATH_STORE (the store that all containers share), RAYPATH_HOME (a folder of this container),
MLFLOW_TRACKING_URI, RAYPATH_ENDPOINT, and AWS_* for a store on S3.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.errors import RaypathError, UserError
from raypath.components.core.graph import Graph
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.execution.process import configure_process
from raypath.deploy.execution.workflow_loader import load_remote
from raypath.deploy.kubeflow import pipeline, single_step
from raypath.deploy.kubeflow.executor_io import ExecutorInput, outputs_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status, and prints an error in one line."""
    configure_process(interrupt_on_sigterm=True)
    args = _parser().parse_args(argv)
    try:
        args.do(args, Path(os.environ.get("RAYPATH_HOME") or "~/.raypath").expanduser().resolve())
    except KeyboardInterrupt:
        print("raypath: stopped", file=sys.stderr)
        return 130
    except RaypathError as error:
        # A traceback does not help a user whose settings or data are wrong.
        notes = getattr(error, "__notes__", []) if error.exit_status != 2 else []
        print(*notes, f"raypath: {error}", sep="\n", file=sys.stderr)
        return error.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m raypath.deploy.kubeflow.container", description="A container of a Kubeflow pipeline."
    )
    adds = top.add_subparsers(required=True)
    for name, do in (("settings", settings), ("step", step), ("driver", driver)):
        one = adds.add_parser(name)
        one.set_defaults(do=do)
        one.add_argument("workflow", help="name or package.module:function in this image")
        one.add_argument("--shape", default="", help="digest of the graph that the pipeline was made from")
        if name != "settings":
            one.add_argument("--step", required=True)
        if name == "step":
            one.add_argument("--ray", default="", metavar="JSON", help="run it as a RayJob with these settings")
        if name == "driver":
            one.add_argument("--plan", required=True, metavar="JSON")
            one.add_argument("--keys", required=True, metavar="JSON", help="records of the step's inputs")
        else:
            one.add_argument("--protocol", choices=[pipeline.PROTOCOL], help="protocol of the messages")
            one.add_argument("--executor_input", required=True, metavar="JSON")
    return top


def settings(args: argparse.Namespace, home: Path) -> None:
    """Check the pipeline's parameters and the environment, and pass a plan to the steps. Raises UserError."""
    call = ExecutorInput.read(args.executor_input)
    values = call.parameters
    fresh, run = values.pop(pipeline.FRESH, []), str(values.pop(pipeline.RUN))
    flow = load_remote(args.workflow, "this image")
    params = flow.params_type().override({pipeline.setting(name): text(value) for name, value in values.items()})
    graph = _check_shape(flow.trace(params), args)
    check_steps(graph, fresh)
    single_step.prepare_environment(home)
    single_step.open_run(home, graph, run)
    plan = {"settings": params.model_dump_json(), "run": run, "fresh": fresh}
    call.write_outputs({pipeline.PLAN: json.dumps(plan)}, {})
    print(f"{graph.workflow}: {len(graph.nodes)} steps, settings and store are valid; run {run}")


def step(args: argparse.Namespace, home: Path) -> None:
    """Run a step or reuse its record, and write its outputs for Kubeflow."""
    call = ExecutorInput.read(args.executor_input)
    plan = json.loads(call.parameters[pipeline.PLAN])
    one = single_step.prepare(_planned(args, plan), args.step, call.keys(), plan, single_step.prepare_environment(home))
    artifact = single_step.reusable(one)
    reused = artifact is not None
    if artifact is None and args.ray:
        from raypath.deploy.kubeflow import rayjob_step

        words = ["--shape", args.shape, "--plan", json.dumps(plan), "--keys", json.dumps(call.keys())]
        rayjob_step.run(one, args.workflow, words, json.loads(args.ray))
        artifact = single_step.committed(one)
    elif artifact is None:
        artifact = single_step.run(one)
    call.write_outputs(*outputs_of(artifact, one.spec.key, reused, pipeline.output_refs(args.step, one.graph)))
    print(f"{args.step}: {'reused' if reused else 'done'}; key {one.spec.key}")


def driver(args: argparse.Namespace, home: Path) -> None:
    """Run a step on the worker nodes of the Ray cluster whose head runs this process."""
    plan = json.loads(args.plan)
    one = single_step.prepare(
        _planned(args, plan),
        args.step,
        json.loads(args.keys),
        plan,
        single_step.prepare_environment(home, cluster=True),
    )
    from raypath.deploy.ray_cluster.platform import RayClusterPlatform

    cluster = RayClusterPlatform(home, one.store)
    try:
        cluster.start()
        single_step.run(one, cluster.run)
    finally:
        cluster.close()


def _planned(args: argparse.Namespace, plan: dict[str, Any]) -> Graph:
    flow = load_remote(args.workflow, "this image")
    return _check_shape(flow.trace(flow.params_type.model_validate_json(plan["settings"])), args)


def _check_shape(graph: Graph, args: argparse.Namespace) -> Graph:
    """Return the graph. Raises UserError for another one than the pipeline was made from."""
    if args.shape and pipeline.shape(graph) != args.shape:
        what = f"{graph.workflow} has other steps than this pipeline, with these settings or with this image"
        raise UserError(
            what, fix="render it again with these settings, from the checkout that the image was built from"
        )
    return graph


def text(value: Any) -> Any:
    """Format a parameter as for `-s KEY=`."""
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
