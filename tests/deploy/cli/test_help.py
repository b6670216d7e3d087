"""Help, options and defaults of all commands and programs, in help.txt: users and manifests call them as written there.

After a change that is meant: `python -m tests.deploy.cli.test_help`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypath.deploy.cli import main as cli
from raypath.deploy.kubeflow import container
from raypath.deploy.kubernetes import mlflow_server
from raypath.deploy.ray_cluster import driver
from raypath.deploy.triggers import webhook

FILE = Path(__file__).parent / "help.txt"


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _commands(inner)


def _described(parser: argparse.ArgumentParser) -> str:
    """The help, then what it does not show: name, type and default of each value."""
    lines = [parser.format_help()]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        kind = getattr(action.type, "__name__", "str")
        required = ", required" if action.required else ""
        lines.append(f"{action.dest}: {kind} = {action.default!r} ({type(action).__name__}{required})")
    return "\n".join(lines)


def described() -> str:
    """Every parser, one after another."""
    programs = (cli.parser(), mlflow_server._parser(), driver._parser(), container._parser(), webhook.parser())
    return f"\n{'-' * 80}\n".join(_described(each) for program in programs for each in _commands(program)) + "\n"


def test_help_and_options_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert described() == FILE.read_text(encoding="utf-8")


if __name__ == "__main__":
    os.environ["COLUMNS"] = "120"
    FILE.write_text(described(), encoding="utf-8")
