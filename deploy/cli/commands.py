"""What each verb of the command line does; what is heavy is imported by the verb that needs it."""

from __future__ import annotations

import argparse
from typing import Any


def _graph(args: argparse.Namespace) -> Any:
    from raypath.deploy.execution.workflow_loader import load_workflow

    workflow = load_workflow(args.workflow)
    return workflow.trace(workflow.params_type().override(_changes(args)))


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    from raypath.deploy.execution.overrides import from_file, from_line

    return {**from_file(args.file), **from_line(args.settings)}


def _prepare(args: argparse.Namespace) -> Any:
    from raypath.deploy.launchers import prepare

    fresh, address = tuple(getattr(args, "fresh", ())), getattr(args, "address", "")
    return prepare(args.on, args.workflow, _changes(args), args.home, fresh, address)


def list_workflows(args: argparse.Namespace) -> None:
    from raypath.deploy.execution.workflow_loader import built_in_workflows

    for name, text in built_in_workflows().items():
        print(f"{name:<24} {text}")


def show(args: argparse.Namespace) -> None:
    from raypath.deploy.console.run_report import show_graph

    show_graph(_graph(args))


def check(args: argparse.Namespace) -> None:
    graph = _graph(args)
    print(f"{graph.workflow}: {len(graph.nodes)} steps, {len(graph.params.flat())} settings, all fit together")


def run(args: argparse.Namespace) -> None:
    launcher, request, params = _prepare(args)
    launcher.run(request, params)


def render(args: argparse.Namespace) -> None:
    launcher, request, params = _prepare(args)
    _give(launcher.render(request, params), args.out)


def schedule(args: argparse.Namespace) -> None:
    from raypath.deploy.triggers.schedule import render

    _, request, params = _prepare(args)
    _give(render(request, args.cron, args.on, params), args.out)


def _give(text: str, out: Any) -> None:
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def runs(args: argparse.Namespace) -> None:
    from raypath.deploy.console.run_report import show_run, show_runs

    if args.follow:
        from raypath.deploy.launchers import attach

        return attach(args.home, args.run or "last")
    show_run(args.home, args.run) if args.run else show_runs(args.home)


def up(args: argparse.Namespace) -> None:
    from raypath.components.core.errors import UserError
    from raypath.deploy.local import services as local
    from raypath.deploy.local.haproxy import PublicListener

    if bool(args.listen) != bool(args.tls):
        raise UserError("other machines are answered over TLS alone", fix="give both --listen and --tls, or neither")
    local.up(args.home, listener=PublicListener(args.listen, args.tls) if args.listen else None)
    status(args)


def down(args: argparse.Namespace) -> None:
    from raypath.deploy.local import services as local

    for line in local.down(args.home) or ["nothing was running"]:
        print(line)


def status(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.status import show_status

    show_status(args.home)


def predict(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.predict import predict_file

    print(predict_file(args.home, args.model, args.data, args.out, args.settings))


def models(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.status import show_models

    show_models(args.home)


def promote(args: argparse.Namespace) -> None:
    from raypath.components.registry.aliases import promote
    from raypath.deploy.cli.promote import follow
    from raypath.deploy.local.services import tracking_uri

    before = promote(tracking_uri(args.home), args.name, args.version)
    print(f"{args.name}: version {args.version} is champion{follow(args.home, args.name, args.version, before)}")


def rollback(args: argparse.Namespace) -> None:
    from raypath.components.registry.aliases import rollback
    from raypath.deploy.cli.promote import follow
    from raypath.deploy.local.services import tracking_uri

    version, before = rollback(tracking_uri(args.home), args.name)
    print(f"{args.name}: version {version} is champion again{follow(args.home, args.name, version, before)}")


def keys_create(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.keys import LIMITS, create_key

    create_key(args.home, args.name, args.scopes, args.expires, {name: getattr(args, name) for name in LIMITS})


def keys_list(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.keys import show_keys

    show_keys(args.home)


def keys_revoke(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.keys import revoke_key

    revoke_key(args.home, args.which)


def usage(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.keys import show_usage

    show_usage(args.home, args.since, args.by, args.file)
