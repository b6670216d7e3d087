"""The command line: the verbs, and nothing else. What is heavy is imported by the verb that needs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status: 0, 1 for our fault, 2 for the user's, 130 for Ctrl-C."""
    # What we write holds the user's data and keys: nobody else's to read.
    os.umask(0o077)
    args = parser().parse_args(argv)
    try:
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
    from components.core.durable import is_full
    from components.core.errors import RaypathError
    from deploy.step import ROOM

    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, RaypathError):
        print(f"raypath: {error}", file=sys.stderr)
        return error.exit_status
    if is_full(error):
        print(f"raypath: the disk of {home()} is full; {ROOM}", file=sys.stderr)
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
    verbs = top.add_subparsers(metavar="VERB", required=True)

    _verb(verbs, "list", _list, "the workflows there are")
    show = _verb(verbs, "show", _show, "a workflow's graph and settings")
    check = _verb(verbs, "check", _check, "trace a workflow and check its settings; run nothing")
    run = _verb(verbs, "run", _run, "run a workflow; running again goes on where it stopped")
    for verb in (show, check, run):
        verb.add_argument("workflow", help="a name of `raypath list`, or package.module:function")
        verb.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting")
        verb.add_argument("-f", dest="file", type=Path, metavar="FILE", help="settings from a YAML file")
    run.add_argument("--on", choices=["local"], default="local", help="where it runs")
    run.add_argument("--fresh", action="append", default=[], metavar="STEP", help="run this step from its beginning")

    runs = _verb(verbs, "runs", _runs, "what ran, and why each step was or was not reused")
    runs.add_argument("run", nargs="?", help="a run's id, or `last`")
    _verb(verbs, "up", _up, "start Ray and MLflow on this machine")
    _verb(verbs, "down", _down, "stop what was started here, endpoints included")
    _verb(verbs, "status", _status, "what is up, and where")

    predict = _verb(verbs, "predict", _predict, "predict a whole file with Ray Data")
    predict.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION or a model folder")
    predict.add_argument("data", help="what read.uri takes: a file, a folder, a glob")
    predict.add_argument(
        "-o", dest="out", type=Path, help="CSV, JSON lines or Parquet file; default DATA.predictions.csv"
    )
    predict.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting")

    _verb(verbs, "models", _models, "registered models, versions and aliases")
    promote = _verb(verbs, "promote", _promote, "make a version the champion")
    promote.add_argument("name")
    promote.add_argument("version", type=int)
    rollback = _verb(verbs, "rollback", _rollback, "make the champion before this one the champion again")
    rollback.add_argument("name")
    _access(verbs)
    return top


def _access(verbs: Any) -> None:
    keys = _verb(verbs, "keys", None, "who may ask the endpoint")
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    create = _verb(actions, "create", _keys_create, "make a key; it is shown once")
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
    _verb(actions, "list", _keys_list, "the keys there are, without their secrets")
    _verb(actions, "revoke", _keys_revoke, "end a key").add_argument("which", metavar="ID|NAME")
    usage = _verb(verbs, "usage", _usage, "who used how much of the endpoint")
    usage.add_argument("--since", metavar="DAY", help="such as 2026-11-01, in UTC; default this month")
    usage.add_argument("--by", choices=["key", "day", "model"], default="key", help="one row each")
    usage.add_argument("--csv", dest="file", type=Path, metavar="FILE", help="write it there instead")


def _verb(verbs: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    made.set_defaults(verb=function)
    made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    return made


def home() -> Path:
    """Where everything of this project is kept: $RAYPATH_HOME, else .raypath in the current folder."""
    return Path(os.environ.get("RAYPATH_HOME") or ".raypath").resolve()


def _graph(args: argparse.Namespace) -> Any:
    from deploy.catalogue import load
    from deploy.settings import from_file, from_line

    workflow = load(args.workflow)
    changes = {**from_file(args.file), **from_line(args.settings)}
    return workflow.trace(workflow.params_type().override(changes))


def _list(args: argparse.Namespace) -> None:
    from deploy.catalogue import names

    for name, text in names().items():
        print(f"{name:<24} {text}")


def _show(args: argparse.Namespace) -> None:
    from deploy.summary import show_graph

    show_graph(_graph(args))


def _check(args: argparse.Namespace) -> None:
    graph = _graph(args)
    print(f"{graph.workflow}: {len(graph.nodes)} steps, {len(graph.params.flat())} settings, all fit together")


def _run(args: argparse.Namespace) -> None:
    from deploy.launch import run_graph
    from deploy.summary import show_result

    graph = _graph(args)
    result, run, seconds = run_graph(graph, home(), args.fresh)
    show_result(result, run, home(), seconds)


def _runs(args: argparse.Namespace) -> None:
    from deploy.summary import show_run, show_runs

    show_run(home(), args.run) if args.run else show_runs(home())


def _up(args: argparse.Namespace) -> None:
    from deploy import local

    local.up(home())
    _status(args)


def _down(args: argparse.Namespace) -> None:
    from deploy import local

    for line in local.down(home()) or ["nothing was running"]:
        print(line)


def _status(args: argparse.Namespace) -> None:
    from deploy.summary import show_status

    show_status(home())


def _predict(args: argparse.Namespace) -> None:
    from deploy.batch import predict_file

    print(predict_file(home(), args.model, args.data, args.out, args.settings))


def _models(args: argparse.Namespace) -> None:
    from deploy.summary import show_models

    show_models(home())


def _promote(args: argparse.Namespace) -> None:
    from components.serving.registry import promote
    from deploy.launch import follow, tracking_uri

    promote(tracking_uri(home()), args.name, args.version)
    print(f"{args.name}: version {args.version} is champion{follow(home(), args.name, args.version)}")


def _rollback(args: argparse.Namespace) -> None:
    from components.serving.registry import rollback
    from deploy.launch import follow, tracking_uri

    version = rollback(tracking_uri(home()), args.name)
    print(f"{args.name}: version {version} is champion again{follow(home(), args.name, version)}")


def _keys_create(args: argparse.Namespace) -> None:
    from deploy.access import LIMITS, create_key

    create_key(home(), args.name, args.scopes, args.expires, {name: getattr(args, name) for name in LIMITS})


def _keys_list(args: argparse.Namespace) -> None:
    from deploy.access import show_keys

    show_keys(home())


def _keys_revoke(args: argparse.Namespace) -> None:
    from deploy.access import revoke_key

    revoke_key(home(), args.which)


def _usage(args: argparse.Namespace) -> None:
    from deploy.access import show_usage

    show_usage(home(), args.since, args.by, args.file)


if __name__ == "__main__":
    sys.exit(main())
