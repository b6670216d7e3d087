"""The command line: the verbs, and nothing else. What a verb does is in `raypath.deploy.cli.commands`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from raypath.deploy.cli import commands as verbs
from raypath.deploy.execution.process import configure_process, quiet_libraries

JSON_COMMANDS = frozenset(
    {"list", "show", "check", "run", "runs", "status", "models", "promote", "rollback", "usage"}
    | {"keys list", "keys create", "keys revoke"}
)
"""Commands with `--json`; what they print is in `raypath.deploy.cli.json_output`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status: 0, 1 for our fault, 2 for the user's, 130 for Ctrl-C."""
    configure_process()
    commands = parser()
    if "_ARGCOMPLETE" in os.environ:
        from raypath.deploy.cli.completion import complete

        complete(commands)
    args = commands.parse_args(argv)
    args.home = home()
    try:
        with quiet_libraries():
            if getattr(args, "json", False):
                from raypath.deploy.cli.json_output import print_json

                return print_json(args)
            return int(args.verb(args) or 0)
    except KeyboardInterrupt:
        print("raypath: stopped; the same line goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`raypath runs | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: one clear line, the traceback on request
        return _explain(error, args.debug)


def _explain(error: Exception, debug: bool) -> int:
    from raypath.components.core.errors import RaypathError
    from raypath.components.core.files import is_disk_full
    from raypath.deploy.execution.step import FREE_SPACE_HINT

    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, RaypathError):
        print(f"raypath: {error}", file=sys.stderr)
        return error.exit_status
    if is_disk_full(error):
        print(f"raypath: the disk of {home()} is full; {FREE_SPACE_HINT}", file=sys.stderr)
        return 1
    print(f"raypath: unforeseen {type(error).__name__}: {error}; run again with --debug", file=sys.stderr)
    return 1


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, as everywhere."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"raypath: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    top = _Parser(prog="raypath", description="From your own data to a model in service, on Ray.")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    adds = top.add_subparsers(metavar="VERB", required=True)

    _verb(adds, "list", verbs.list_workflows, "the workflows there are")
    show = _verb(adds, "show", verbs.show, "a workflow's graph and settings")
    check = _verb(adds, "check", verbs.check, "trace a workflow and check its settings; run nothing")
    run = _verb(adds, "run", verbs.run, "run a workflow; running again goes on where it stopped")
    render = _verb(adds, "render", verbs.render, "what a run elsewhere would submit, as text")
    schema = _verb(adds, "schema", verbs.schema, "JSON Schema of a workflow's params file, for editors")
    schema.add_argument("-o", dest="out", type=Path, metavar="FILE", help="default: the terminal")
    for verb in (show, check, run, render):
        verb.add_argument("workflow", help="a name of `raypath list`, or package.module:function")
        verb.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting")
        verb.add_argument("-f", dest="file", type=Path, metavar="FILE", help="settings from a YAML file")
    run.add_argument("--on", choices=["local", "ray", "kuberay", "kubeflow"], default="local", help="where it runs")
    run.add_argument("--address", default="", metavar="URL", help="of the cluster, where there is one")
    run.add_argument("--dry-run", action="store_true", help="print what would run and why; start nothing")
    run.add_argument("--fresh", action="append", default=[], metavar="STEP", help="run this step from its beginning")

    render.add_argument("--on", choices=["kuberay", "kubeflow"], required=True, help="for what")
    render.add_argument("-o", dest="out", type=Path, metavar="FILE", help="default: the terminal")

    schedule = _verb(adds, "schedule", verbs.schedule, "what runs a workflow by the clock, as text")
    schedule.add_argument("workflow", help="a name of `raypath list`, or package.module:function")
    schedule.add_argument("--cron", required=True, metavar="WHEN", help="as in crontab; UTC on a cluster")
    schedule.add_argument("--on", choices=["local", "kuberay", "kubeflow"], default="local", help="where it runs")
    schedule.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    schedule.add_argument("-f", dest="file", type=Path, metavar="FILE", help="settings from a YAML file")
    schedule.add_argument("-o", dest="out", type=Path, metavar="FILE", help="default: the terminal")

    runs = _verb(adds, "runs", verbs.runs, "what ran, and why each step was or was not reused")
    runs.add_argument("run", nargs="?", help="a run's id, or `last`")
    runs.add_argument("--follow", action="store_true", help="watch a run on a cluster until it ends")
    up = _verb(adds, "up", verbs.up, "start Ray and MLflow on this machine")
    up.add_argument("--listen", metavar="ADDRESS:PORT", help="answer other machines there, over TLS")
    up.add_argument("--tls", type=Path, metavar="FILE", help="PEM file with the certificate and its private key")
    _verb(adds, "down", verbs.down, "stop what was started here, endpoints included")
    _verb(adds, "status", verbs.status, "what is up, and where")

    predict = _verb(adds, "predict", verbs.predict, "predict a whole file with Ray Data")
    predict.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION or a model folder")
    predict.add_argument("data", help="what read.uri takes: a file, a folder, a glob")
    predict.add_argument(
        "-o", dest="out", type=Path, help="CSV, JSON lines or Parquet file; default DATA.predictions.csv"
    )
    predict.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting")

    _verb(adds, "models", verbs.models, "registered models, versions and aliases")
    promote = _verb(adds, "promote", verbs.promote, "make a version the champion")
    promote.add_argument("name")
    promote.add_argument("version", type=int)
    rollback = _verb(adds, "rollback", verbs.rollback, "make the champion before this one the champion again")
    rollback.add_argument("name")
    _access(adds)
    init = _verb(adds, "init", verbs.init, "make a project of your own: a workflow, a component, a test, params.yaml")
    init.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder")
    completion = _verb(adds, "completion", verbs.completion, "print the completion script of a shell")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    schema.add_argument("workflow", help="a name of `raypath list`, or package.module:function")
    return top


def _access(adds: Any) -> None:
    keys = _verb(adds, "keys", None, "who may ask the endpoint")
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    create = _verb(actions, "create", verbs.keys_create, "make a key; it is shown once")
    create.add_argument("name", help="who it is for")
    create.add_argument("--scopes", default="predict,embed", help="some of predict,embed,admin")
    create.add_argument("--expires", metavar="WHEN", help="30d, or a day such as 2027-01-01; default never")
    for flag, field, text in (
        ("--rate", "requests_per_minute", "requests a minute"),
        ("--quota-requests", "quota_requests", "requests a month"),
        ("--quota-tokens", "quota_tokens", "tokens a month"),
        ("--price-request", "price_per_request", "price of a request"),
        ("--price-tokens", "price_per_1k_tokens", "price of 1,000 tokens"),
    ):
        kind = float if "price" in flag else int
        create.add_argument(flag, dest=field, type=kind, default=0, metavar="N", help=f"{text}; default none")
    _verb(actions, "list", verbs.keys_list, "the keys there are, without their secrets")
    _verb(actions, "revoke", verbs.keys_revoke, "end a key").add_argument("which", metavar="ID|NAME")
    usage = _verb(adds, "usage", verbs.usage, "who used how much of the endpoint")
    usage.add_argument("--since", metavar="DAY", help="such as 2026-11-01, in UTC; default this month")
    usage.add_argument("--by", choices=["key", "day", "model"], default="key", help="one row each")
    usage.add_argument("--csv", dest="file", type=Path, metavar="FILE", help="write it there instead")


def _verb(adds: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = adds.add_parser(name, help=text, description=text)
    made.set_defaults(verb=function, command=made.prog.partition(" ")[2])
    if made.prog.partition(" ")[2] in JSON_COMMANDS:
        made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    return made


def home() -> Path:
    """Where everything of this project is kept: $RAYPATH_HOME, else .raypath in the current folder."""
    return Path(os.environ.get("RAYPATH_HOME") or ".raypath").resolve()


if __name__ == "__main__":
    sys.exit(main())
