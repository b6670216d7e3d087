"""Command line: commands and their options. Their implementation is in `raypath.deploy.cli.commands`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypath.deploy.cli import commands
from raypath.deploy.cli.parser import CommandParser, ShowVersion, add_command
from raypath.deploy.cli.security.options import (
    add_audit,
    add_backup,
    add_card,
    add_comply,
    add_encryption,
    add_forget,
    add_keys_and_usage,
    add_retention,
    add_risk,
    add_tls,
)
from raypath.deploy.execution.process import configure_process, quiet_libraries


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0, 1 for a failure, 2 for a user error, 130 for Ctrl-C."""
    configure_process()
    top = parser()
    if "_ARGCOMPLETE" in os.environ:
        from raypath.deploy.cli.completion import complete

        complete(top)
    args = top.parse_args(argv)
    args.home = home()
    try:
        with quiet_libraries():
            if getattr(args, "json", False):
                from raypath.deploy.cli.json_output import print_json

                return print_json(args)
            return int(args.handler(args) or 0)
    except KeyboardInterrupt:
        print("raypath: interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has ended, as in `raypath runs | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - one line for any error, the traceback on request
        return _explain(error, args.debug)


def _explain(error: Exception, debug: bool) -> int:
    from raypath.components.core.errors import RaypathError, printable
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
    reason = printable(f"{type(error).__name__}: {error}")
    print(f"raypath: unexpected {reason}; run again with --debug", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = CommandParser(prog="raypath", description="From your own data to a model in service, on Ray.")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    top.add_argument("--version", action=ShowVersion, nargs=0, help="print the version")
    top.set_defaults(handler=lambda _: print(top.format_help(), end=""))
    group = top.add_subparsers(metavar="COMMAND")

    inspect = add_command(group, "inspect", commands.inspect, "report on data files: labels, texts, duplicates, leaks")
    inspect.add_argument("data", help="a file, a folder, a glob or another value of read.uri")
    _add_settings(inspect)
    inspect.add_argument(
        "-o", dest="out", type=Path, metavar="FOLDER", help="write the page, JSON and row numbers there"
    )
    what = "write the settings that mend what was found, for `raypath run WORKFLOW -f FILE`"
    inspect.add_argument("--apply", type=Path, metavar="FILE", help=what)
    _add_workflows(group)
    up = add_command(group, "up", commands.up, "start Ray and MLflow on this machine")
    up.add_argument("--listen", metavar="ADDRESS:PORT", help="also serve other machines at this address, over TLS")
    what = "PEM file with the certificate and its private key; default: the project's own, see `raypath tls`"
    up.add_argument("--tls", type=Path, metavar="FILE", help=what)
    what = "ask clients for certificates, of the project's own authority unless --client-ca names another"
    up.add_argument("--client-auth", choices=["required", "optional"], help=what)
    what = "PEM file with the authorities of the clients' certificates"
    up.add_argument("--client-ca", type=Path, metavar="FILE", help=what)
    up.add_argument("--revoked", type=Path, metavar="FILE", help="PEM file with the revocation lists of --client-ca")
    what = "encrypt what Ray's processes send each other; each has to have a certificate, see `raypath tls init --ray`"
    up.add_argument("--ray-tls", action="store_true", help=what)
    add_command(group, "down", commands.down, "stop the services of this project, endpoints included")
    add_command(group, "status", commands.status, "show services, endpoints and their URLs")

    _add_models(group)
    add_keys_and_usage(group)
    add_tls(group)
    add_audit(group)
    add_backup(group)
    add_encryption(group)
    add_retention(group)
    add_forget(group)
    add_comply(group)
    add_risk(group)
    init = add_command(group, "init", commands.init, "create a project: workflow, component, test, params.yaml")
    init.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder")
    completion = add_command(group, "completion", commands.completion, "print the completion script of a shell")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    return top


def _add_workflows(group: Any) -> None:
    add_command(group, "list", commands.list_workflows, "list the built-in workflows")
    show = add_command(group, "show", commands.show, "show the graph and the settings of a workflow")
    check = add_command(group, "check", commands.check, "check a workflow and its settings without running it")
    run = add_command(group, "run", commands.run, "run a workflow; the same command again resumes it")
    render = add_command(group, "render", commands.render, "print what a run on a cluster would submit")
    schema = add_command(
        group, "schema", commands.schema, "print the JSON Schema of a workflow's settings, for editors"
    )
    schema.add_argument("workflow", help="a name from `raypath list`, or package.module:function")
    _add_output(schema)
    for command in (show, check, run, render):
        _add_workflow(command)
    _add_platform(run, ["local", "ray", "kuberay", "kubeflow"])
    run.add_argument("--address", default="", metavar="URL", help="URL of the Ray or Kubeflow cluster")
    run.add_argument("--dry-run", action="store_true", help="print which steps would run, and why; run nothing")
    run.add_argument(
        "--fresh", action="append", default=[], metavar="STEP", help="run this step again from its beginning"
    )

    render.add_argument("--on", choices=["kuberay", "kubeflow"], required=True, help="target platform")
    _add_output(render)

    schedule = add_command(
        group, "schedule", commands.schedule, "print a crontab line or a manifest that runs a workflow"
    )
    _add_workflow(schedule)
    schedule.add_argument("--cron", required=True, metavar="WHEN", help="crontab expression; in UTC on a cluster")
    _add_platform(schedule, ["local", "kuberay", "kubeflow"])
    _add_output(schedule)

    runs = add_command(group, "runs", commands.runs, "show the run history, and why each step ran or was reused")
    runs.add_argument("run", nargs="?", help="id of a run, or `last`")
    runs.add_argument("--follow", action="store_true", help="follow a run on a cluster until it ends")


def _add_workflow(command: argparse.ArgumentParser) -> None:
    command.add_argument("workflow", help="a name from `raypath list`, or package.module:function")
    _add_settings(command)
    command.add_argument("-f", dest="file", type=Path, metavar="FILE", help="read settings from a YAML file")


def _add_settings(command: argparse.ArgumentParser) -> None:
    text = "change a setting; can be repeated"
    command.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=text)


def _add_platform(command: argparse.ArgumentParser, platforms: list[str]) -> None:
    command.add_argument("--on", choices=platforms, default="local", help="platform; default local")


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", dest="out", type=Path, metavar="FILE", help="output file; default: standard output")


def _add_models(group: Any) -> None:
    predict = add_command(group, "predict", commands.predict, "run batch inference over a file")
    text = "models:/NAME@ALIAS, models:/NAME/VERSION or a model folder; with --encrypted the URL of an endpoint"
    predict.add_argument("model", help=text)
    predict.add_argument("data", help="a file, a folder, a glob or another value of read.uri")
    predict.add_argument(
        "-o", dest="out", type=Path, help="CSV, JSON lines or Parquet file; default DATA.predictions.csv"
    )
    text = "send encrypted features to an endpoint; BASE is the encoder that computes them in this process"
    predict.add_argument("--encrypted", default="", metavar="BASE", help=text)
    _add_settings(predict)
    _add_chat(group)

    models = add_command(group, "models", commands.models, "list registered models, or check and sign their versions")
    what = models.add_mutually_exclusive_group()
    what.add_argument("--verify", action="store_true", help="check the signature and all files of every version")
    what.add_argument(
        "--sign", nargs=2, metavar=("NAME", "VERSION"), help="sign a version as it is in the registry now"
    )
    what.add_argument("--rotate-key", action="store_true", help="sign with a new key from now on")
    promote = add_command(group, "promote", commands.promote, "make a version the champion and serve it")
    promote.add_argument("registered", metavar="NAME", help="name of a registered model")
    promote.add_argument("version", type=int, metavar="VERSION")
    rollback = add_command(group, "rollback", commands.rollback, "make the previous champion the champion again")
    rollback.add_argument("registered", metavar="NAME", help="name of a registered model")
    _add_export(group)
    add_card(group)


def _add_chat(group: Any) -> None:
    chat = add_command(group, "chat", commands.chat, "chat with a language model in the terminal")
    chat.add_argument("message", nargs="?", default="", help="message to respond to; default: lines of standard input")
    what = "URL of an endpoint; default: the one that the last run of a language model has put in service"
    chat.add_argument("--url", default="", metavar="URL", help=what)
    what = "PEM file of the authority to trust for https; default: the system's, and those of $RAYPATH_CA_FILE"
    chat.add_argument("--ca", type=Path, metavar="FILE", help=what)
    what = "models:/NAME@ALIAS, models:/NAME/VERSION or a folder, loaded into this process instead of an endpoint"
    chat.add_argument("--model", default="", metavar="MODEL", help=what)
    chat.add_argument("--system", default="", metavar="TEXT", help="system prompt; default none")
    for flag, kind, text in (
        ("--temperature", float, "0 is greedy decoding; default: the endpoint's, 0 with --model"),
        ("--top-p", float, "draw from the fewest tokens whose probabilities reach this sum"),
        ("--max-tokens", int, "most tokens of a response"),
        ("--seed", int, "seed of the random numbers"),
    ):
        chat.add_argument(flag, type=kind, metavar="N", help=text)


def _add_export(group: Any) -> None:
    what = "write a model for other programs: transformers, peft, llama.cpp and Ollama, ONNX"
    export = add_command(group, "export", commands.export, what)
    export.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION or a model folder")
    what = "hf: transformers, adapters merged; peft: the LoRA adapter alone; gguf: a file and a Modelfile for Ollama; "
    what += "encoder: for clients that encrypt"
    export.add_argument("--to", choices=["hf", "peft", "gguf", "onnx", "encoder"], required=True, help=what)
    export.add_argument("out", type=Path, metavar="DIR", help="a new or empty folder")
    what = "type of the matrices in GGUF; default f16"
    export.add_argument("--type", choices=["f16", "bf16", "q8_0"], type=str.lower, default="f16", help=what)


def home() -> Path:
    """Return the home folder: $RAYPATH_HOME, else .raypath in the current folder."""
    return Path(os.environ.get("RAYPATH_HOME") or ".raypath").resolve()


if __name__ == "__main__":
    sys.exit(main())
