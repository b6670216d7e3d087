"""Sphinx extension: reference tables from the code, and links of included files.

A page asks for a table with an HTML comment:

    <!-- generate: cli -->         every command, from the argparse parser
    <!-- generate: settings -->    every setting, from the Params classes of workflows and launchers
"""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from sphinx.application import Sphinx
from sphinx.util import logging

from raypath.components.core.params import Params, describe_fields
from raypath.deploy.cli.main import parser
from raypath.deploy.execution.workflow_loader import built_in_workflows, load_workflow
from raypath.deploy.launchers import LAUNCHERS

ROOT = Path(__file__).parent.parent
INCLUDED = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "k8s/README.md": "kubernetes.md",
    "README.md": "index.md",
}
"""Files of the repository that are pages of the site."""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_LOG = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
    return {"parallel_read_safe": True}


def _read_page(app: Sphinx, page: str, source: list[str]) -> None:
    path = Path(app.srcdir) / f"{page}.md"
    text = resolve_links(source[0], path)
    for name, make in (("cli", cli_reference), ("settings", settings_reference)):
        text = text.replace(f"<!-- generate: {name} -->", make() if f"generate: {name} -->" in text else "")
    source[0] = text


def _read_included(app: Sphinx, path: Path, page: str, source: list[str]) -> None:
    source[0] = resolve_links(source[0], (Path(app.srcdir) / path).resolve())


def resolve_links(text: str, path: Path) -> str:
    """Rewrite links between files of the repository as links of the site.

    A link to a file that is no page becomes the file's path. A link to a file that does not exist is a warning.
    """

    def replace(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        found = (path.parent / target).resolve()
        if not found.exists():
            _LOG.warning("%s links to %s, which does not exist", path.name, target)
            return label
        name = found.relative_to(ROOT).as_posix()
        if name in INCLUDED:
            return f"[{label}]({INCLUDED[name]}{anchor})"
        if name.startswith("docs/"):
            return f"[{label}]({name.removeprefix('docs/')}{anchor})"
        return label if label.strip("`") == name else f"{label} (`{name}`)"

    return _LINK.sub(replace, text)


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
        rows = [_row(action) for action in command._actions if action.help != argparse.SUPPRESS]
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
    return f"| {_cell(name)} | {_cell(meaning)} |"


def _metavar(action: argparse.Action) -> str:
    if action.metavar:
        return str(action.metavar)
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def settings_reference() -> str:
    """Return every setting of the built-in workflows and the launchers as Markdown, a table a group."""
    groups: dict[str, list[str]] = {}
    for kind, prefix in _params():
        defaults = kind().flat()
        for key, _, text in describe_fields(kind):
            name = prefix + key
            group = name.partition(".")[0] if "." in name else "Workflow"
            rows = groups.setdefault(group, [])
            if not any(row.startswith(f"| `{name}` ") for row in rows):
                rows.append(f"| `{name}` | {_type(kind, key)} | {_default(defaults, key)} | {_cell(text)} |")
    header = "| setting | type | default | meaning |\n| --- | --- | --- | --- |"
    return "\n".join(f"## {group}\n\n{header}\n" + "\n".join(rows) + "\n" for group, rows in groups.items())


def _params() -> Iterator[tuple[type[Params], str]]:
    names = sorted(built_in_workflows(), key=lambda name: name != "text_classification")
    for name in names:
        yield load_workflow(name).params_type, ""
    for name, module in LAUNCHERS.items():
        yield importlib.import_module(module).PARAMS, f"{name}."


def _default(defaults: dict[str, Any], key: str) -> str:
    value = defaults.get(key)
    if value is None or value in ("", [], ()):
        return "none" if value is None else "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(kind: type[Params], key: str) -> str:
    *groups, leaf = key.split(".")
    for group in groups:
        kind = kind.model_fields[group].annotation  # type: ignore[assignment]
    return _cell(_type_name(kind.model_fields[leaf].annotation))


def _type_name(annotation: Any) -> str:
    """Return a type as a reader of the command line knows it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    if str(origin) == "typing.Literal":
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (dict, list, tuple):
        return {dict: "mapping", list: "list", tuple: "list"}[origin]
    if arguments:
        return " or ".join(_type_name(argument) for argument in arguments)
    plain = {str: "text", int: "integer", float: "number", bool: "boolean", type(None): "none"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
