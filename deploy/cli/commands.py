"""Implementation of each command. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
import importlib
from typing import Any


def _graph(args: argparse.Namespace, final: bool = True) -> Any:
    from raypath.deploy.execution.workflow_loader import load_workflow
    from raypath.deploy.launchers import trace

    return trace(load_workflow(args.workflow), changes(args), final)


def changes(args: argparse.Namespace) -> dict[str, Any]:
    from raypath.deploy.execution.overrides import from_file, from_line

    return {**from_file(args.file), **from_line(args.settings)}


def _prepare(args: argparse.Namespace) -> Any:
    from raypath.deploy.launchers import prepare

    fresh, address = tuple(getattr(args, "fresh", ())), getattr(args, "address", "")
    return prepare(args.on, args.workflow, changes(args), args.home, fresh, address)


def inspect(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.inspect import show_inspection

    show_inspection(args)


def list_workflows(args: argparse.Namespace) -> None:
    from raypath.deploy.execution.workflow_loader import built_in_workflows

    for name, text in built_in_workflows().items():
        print(f"{name:<24} {text}")


def show(args: argparse.Namespace) -> None:
    from raypath.deploy.console.run_report import show_graph

    show_graph(_graph(args, final=False))


def check(args: argparse.Namespace) -> None:
    graph = _graph(args)
    print(f"{graph.workflow}: {len(graph.nodes)} steps, {len(graph.params.flat())} settings, no errors")


def run(args: argparse.Namespace) -> None:
    if args.dry_run:
        from raypath.deploy.api.plans import plan
        from raypath.deploy.cli.plan import show_plan

        return show_plan(plan(args.workflow, changes(args), on=args.on, fresh=args.fresh, home=args.home))
    launcher, request, params = _prepare(args)
    launcher.run(request, params)


def render(args: argparse.Namespace) -> None:
    launcher, request, params = _prepare(args)
    _write(launcher.render(request, params), args.out)


def schedule(args: argparse.Namespace) -> None:
    from raypath.deploy.triggers.schedule import render

    _, request, params = _prepare(args)
    _write(render(request, args.cron, args.on, params), args.out)


def _write(text: str, out: Any) -> None:
    from raypath.deploy.console.output_file import write_file

    if out:
        write_file(out, text)
    else:
        print(text, end="")


def runs(args: argparse.Namespace) -> None:
    from raypath.deploy.console.run_report import show_run, show_runs

    if args.follow:
        from raypath.deploy.launchers import attach

        return attach(args.home, args.run or "last")
    show_run(args.home, args.run) if args.run else show_runs(args.home)


def up(args: argparse.Namespace) -> None:
    from raypath.deploy.api.services import up
    from raypath.deploy.cli.status import show_status
    from raypath.deploy.local.services import login_url

    files = {"tls": args.tls, "client_ca": args.client_ca, "revoked": args.revoked}
    given = {"listen": args.listen or "", "client_auth": args.client_auth or "", "ray_tls": args.ray_tls}
    show_status(up(**given, **files, home=args.home))
    print(f"\nMLflow in a browser (log in within 10 minutes, once): {login_url(args.home)}")


def down(args: argparse.Namespace) -> None:
    from raypath.deploy.api.services import down

    for line in down(home=args.home) or ["nothing was running"]:
        print(line)


def status(args: argparse.Namespace) -> None:
    from raypath.deploy.api.services import status
    from raypath.deploy.cli.status import show_status

    show_status(status(home=args.home))


def predict(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.prediction.encrypted import predict_encrypted
    from raypath.deploy.cli.prediction.predict import predict_file

    if args.encrypted:
        print(predict_encrypted(args.model, args.data, args.encrypted, args.out, args.settings))
        return
    print(predict_file(args.home, args.model, args.data, args.out, args.settings))


def chat(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.language.chat import chat

    names = ("temperature", "top_p", "max_tokens", "seed")
    settings = {name: getattr(args, name) for name in names}
    chat(args.home, args.url, args.model, args.message, args.system, settings, args.ca)


def export(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.export import export_version

    print(export_version(args))


def card(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.export import write_cards

    print(write_cards(args))


def models(args: argparse.Namespace) -> int:
    from raypath.deploy.api.models import models
    from raypath.deploy.cli.security import signatures
    from raypath.deploy.cli.status import show_models

    if args.verify:
        return signatures.show_signatures(signatures.verify(args))
    if args.sign:
        return signatures.show_signed(signatures.sign(args))
    if args.rotate_key:
        return signatures.show_rotated(signatures.rotate_key(args))
    show_models(models(home=args.home))
    return 0


def promote(args: argparse.Namespace) -> None:
    from raypath.deploy.api.models import promote

    made = promote(args.registered, args.version, home=args.home)
    print(f"{made.name}: version {made.version} is champion and {made.serving}")


def rollback(args: argparse.Namespace) -> None:
    from raypath.deploy.api.models import rollback

    made = rollback(args.registered, home=args.home)
    print(f"{made.name}: version {made.version} is champion again and {made.serving}")


def keys_create(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.keys import HOLDER, create_key, given_certificate

    limits = {name: getattr(args, name) for name in HOLDER}
    create_key(args.home, args.name, args.scopes, args.allowed_models, args.expires, limits, given_certificate(args))


def keys_list(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.keys import show_keys

    show_keys(args.home)


def keys_revoke(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.keys import revoke_key

    revoke_key(args.home, args.which)


def keys_tenant(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.tenants import set_tenant

    set_tenant(args.home, args.name, args.allowed_models)


def keys_tenants(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.tenants import show_tenants

    show_tenants(args.home)


def keys_trust(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.issuers import trust

    trust(args)


def keys_distrust(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.issuers import distrust

    distrust(args.home, args.issuer)


def keys_issuers(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.issuers import show_issuers

    show_issuers(args.home)


def usage(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.keys import show_usage

    show_usage(args.home, args.since, args.by, args.file, args.tenant)


def audit_list(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.audit import show_records

    show_records(args)


def audit_verify(args: argparse.Namespace) -> int:
    from raypath.deploy.cli.security.audit import show_verification, verify_log

    return show_verification(verify_log(args))


def audit_anchor(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.audit import anchor_log

    print(anchor_log(args.home))


def protect(args: argparse.Namespace) -> int:
    """Run an action of `backup`, `encryption`, `retention`, `tls` or `comply`: each has a module of its name."""
    module = importlib.import_module(f"raypath.deploy.cli.security.{args.command.partition(' ')[0]}")
    return module.ACTIONS[args.command](args) or 0


def forget(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.security.forget import forget, proof

    (proof if args.proof else forget)(args)


def risk(args: argparse.Namespace) -> int:
    from raypath.deploy.cli.security.risk import show

    return show(args)


def init(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.project.init import init_project

    print(init_project(args.folder))


def schema(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.project.schema import print_schema

    print_schema(args.workflow, args.out)


def completion(args: argparse.Namespace) -> None:
    from raypath.deploy.cli.completion import script

    print(script(args.shell))
