"""What a container of a Kubeflow pipeline runs: `python -m raypath.deploy.kubeflow.container settings|step WORKFLOW
...`.

settings    put what the user set into the workflow and look that it can run, before anything is paid for
step        run one step, or reuse its record; its key is the same as anywhere else, and so is its `run_step`
driver      the same inside a RayJob that `step --ray` has started and waits for

In the environment: RAYPATH_STORE (where all containers find artifacts), RAYPATH_HOME (a folder of this one),
MLFLOW_TRACKING_URI, RAYPATH_ENDPOINT, and AWS_* for a store on S3. Exit status as everywhere.
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
from raypath.deploy.kubeflow import pipeline
from raypath.deploy.kubeflow import single_step as one_step
from raypath.deploy.kubeflow.executor_io import Call, outputs_of


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words ask for; returns the exit status, after one line for what went wrong."""
    configure_process(interrupt_on_sigterm=True)
    args = _parser().parse_args(argv)
    try:
        args.do(args, Path(os.environ.get("RAYPATH_HOME") or "~/.raypath").expanduser().resolve())
    except KeyboardInterrupt:
        print("raypath: stopped", file=sys.stderr)
        return 130
    except RaypathError as error:
        # Where a step broke is for who can mend it: not a user whose settings or data are at fault.
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
        one.add_argument("workflow", help="as the image finds it")
        one.add_argument("--shape", default="", help="of the graph that the pipeline was made from")
        if name != "settings":
            one.add_argument("--step", required=True)
        if name == "step":
            one.add_argument("--ray", default="", metavar="JSON", help="run it as a RayJob with these settings")
        if name == "driver":
            one.add_argument("--plan", required=True, metavar="JSON")
            one.add_argument("--keys", required=True, metavar="JSON", help="the records of its inputs")
        else:
            one.add_argument("--protocol", choices=[pipeline.PROTOCOL], help="whose messages these are")
            one.add_argument("--executor_input", required=True, metavar="JSON")
    return top


def settings(args: argparse.Namespace, home: Path) -> None:
    """Check the pipeline's parameters and the ground, and hand on a plan. Raises what a user can mend."""
    call = Call.read(args.executor_input)
    values = call.parameters
    fresh, run = values.pop(pipeline.FRESH, []), str(values.pop(pipeline.RUN))
    flow = load_remote(args.workflow, "this image")
    params = flow.params_type().override({pipeline.setting(name): text(value) for name, value in values.items()})
    graph = _same(flow.trace(params), args)
    check_steps(graph, fresh)
    one_step.ground(home)
    one_step.begin(home, graph, run)
    plan = {"settings": params.model_dump_json(), "run": run, "fresh": fresh}
    call.answer({pipeline.PLAN: json.dumps(plan)}, {})
    print(f"{graph.workflow}: {len(graph.nodes)} steps, settings and store are well; run {run}")


def step(args: argparse.Namespace, home: Path) -> None:
    """Run a step, or reuse its record, and tell Kubeflow what came of it."""
    call = Call.read(args.executor_input)
    plan = json.loads(call.parameters[pipeline.PLAN])
    one = one_step.prepare(_planned(args, plan), args.step, call.keys(), plan, one_step.ground(home))
    artifact = one_step.reusable(one)
    reused = artifact is not None
    if artifact is None and args.ray:
        from raypath.deploy.kubeflow import rayjob_step as step_job

        words = ["--shape", args.shape, "--plan", json.dumps(plan), "--keys", json.dumps(call.keys())]
        step_job.run(one, args.workflow, words, json.loads(args.ray))
        artifact = one_step.committed(one)
    elif artifact is None:
        artifact = one_step.run(one)
    call.answer(*outputs_of(artifact, one.spec.key, reused, pipeline.handed_on(args.step, one.graph)))
    print(f"{args.step}: {'reused, nothing changed' if reused else 'done'}; key {one.spec.key}")


def driver(args: argparse.Namespace, home: Path) -> None:
    """Run a step on the nodes of the Ray cluster that this process is part of: on its head are no GPUs."""
    plan = json.loads(args.plan)
    one = one_step.prepare(
        _planned(args, plan), args.step, json.loads(args.keys), plan, one_step.ground(home, cluster=True)
    )
    from raypath.deploy.ray_cluster.platform import RayClusterPlatform

    cluster = RayClusterPlatform(home, one.store)
    try:
        cluster.start()
        one_step.run(one, cluster.run)
    finally:
        cluster.close()


def _planned(args: argparse.Namespace, plan: dict[str, Any]) -> Graph:
    flow = load_remote(args.workflow, "this image")
    return _same(flow.trace(flow.params_type.model_validate_json(plan["settings"])), args)


def _same(graph: Graph, args: argparse.Namespace) -> Graph:
    """Raise UserError for a graph that is not the one that the pipeline was made from."""
    if args.shape and pipeline.shape(graph) != args.shape:
        what = f"with these settings, or with this image, {graph.workflow} has other steps than this pipeline"
        raise UserError(what, fix="render it again with -s for these settings, from the checkout the image is made of")
    return graph


def text(value: Any) -> Any:
    """A parameter as it would stand after `-s KEY=`."""
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
