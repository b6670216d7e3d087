"""CLI reference from the argparse parser."""

import argparse
from collections.abc import Iterator

from generators.markdown import cell
from raypath.deploy.cli.main import parser


def cli_reference() -> str:
    """Return every command of the command line as Markdown."""
    return "\n".join(_commands(parser(), 2))


def _commands(command: argparse.ArgumentParser, level: int) -> Iterator[str]:
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help for choice in action._choices_actions}
            for name, sub in action.choices.items():
                if name in summaries:
                    yield from _command(sub, summaries[name], level)


def _command(command: argparse.ArgumentParser, summary: str | None, level: int) -> Iterator[str]:
    yield f"{'#' * level} {command.prog}\n"
    text = command.description or summary or ""
    yield text[:1].upper() + text[1:].rstrip(".") + ".\n"
    nested = any(isinstance(action, argparse._SubParsersAction) for action in command._actions)
    if not nested:
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        yield f"```text\n{usage}\n```\n"
        rows = [
            _row(action) for action in command._actions if action.help != argparse.SUPPRESS and action.dest != "help"
        ]
        yield "| argument | meaning |\n| --- | --- |"
        yield from rows
        yield ""
    yield from _commands(command, level + 1)


def _row(action: argparse.Action) -> str:
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {_metavar(action)}"
        name = ", ".join(f"`{option}{value}`" for option in action.option_strings)
    else:
        name = f"`{_metavar(action)}`"
    meaning = (action.help or "").replace("%(default)s", str(action.default))
    return f"| {cell(name)} | {cell(meaning)} |"


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar:
        return str(action.metavar)
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper() if action.option_strings else action.dest
