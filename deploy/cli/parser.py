"""Parser of the command line: help by group, usage errors in one line, and `--json`."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

JSON_COMMANDS = frozenset(
    {"list", "show", "check", "run", "runs", "status", "models", "promote", "rollback", "usage", "inspect"}
    | {"keys list", "keys create", "keys revoke", "audit list", "audit verify"}
    | {"backup create", "backup list", "backup verify", "tls show"}
    | {"comply review", "comply state", "risk"}
    | {"encryption init", "encryption status", "encryption rotate"}
)
"""Commands with `--json`; what they print is in `raypath.deploy.cli.json_output`."""

GROUPS = {
    "Data": ("inspect",),
    "Workflows": ("list", "show", "check", "run", "runs", "init", "schema"),
    "Models": ("models", "promote", "rollback", "predict", "chat", "export", "card"),
    "Services": ("up", "down", "status"),
    "API keys and usage": ("keys", "usage"),
    "Certificates": ("tls",),
    "Protection of data": ("audit", "backup", "encryption", "retention", "forget", "comply", "risk"),
    "Clusters": ("render", "schedule"),
    "Shell": ("completion",),
}
"""Commands by group, as `raypath --help` lists them."""


class CommandParser(argparse.ArgumentParser):
    """Parser that reports a usage error in one line and groups commands in its help."""

    def format_help(self) -> str:
        """Return the help; that of the top parser lists the commands by group."""
        found = next((a for a in self._actions if isinstance(a, argparse._SubParsersAction)), None)
        if found is None or " " in self.prog:
            return super().format_help()
        texts = {each.dest: each.help or "" for each in found._choices_actions}
        grouped = {name for names in GROUPS.values() for name in names}
        others = {"Other": tuple(name for name in texts if name not in grouped)} if set(texts) - grouped else {}
        lines = [f"usage: {self.prog} [--help] [--version] [--debug] COMMAND ...", "", self.description or ""]
        for title, names in {**GROUPS, **others}.items():
            lines += ["", f"{title}:", *(f"  {name:<12} {texts[name]}" for name in names if name in texts)]
        return "\n".join([*lines, "", f"Run `{self.prog} COMMAND --help` for the options of a command.", ""])

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"raypath: {message}; see `{self.prog} --help`\n")


class ShowVersion(argparse.Action):
    """Print the installed version and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from importlib.metadata import version

        print(f"raypath {version('raypath')}")
        parser.exit()


def add_command(group: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = group.add_parser(name, help=text, description=text)
    made.set_defaults(handler=function, command=made.prog.partition(" ")[2])
    if made.prog.partition(" ")[2] in JSON_COMMANDS:
        made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    return made
