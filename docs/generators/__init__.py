"""Sphinx extension: reference tables from the code, and links of included files.

A page asks for a table with an HTML comment:

    <!-- generate: cli -->         every command, from the argparse parser
    <!-- generate: settings -->    every setting, from the Params classes of workflows and launchers
    <!-- generate: metrics -->     the endpoint's metrics
    <!-- generate: api -->         the public names of `raypath`, from their docstrings
    <!-- generate: notebook -->    the notebook beside the page, as text
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from generators.api import api_reference, format_docstring
from generators.cli import cli_reference
from generators.links import resolve_links
from generators.notebook import notebook
from generators.settings import metrics_reference, settings_reference

TABLES = {
    "cli": cli_reference,
    "settings": settings_reference,
    "metrics": metrics_reference,
    "api": api_reference,
    "notebook": notebook,
}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
    app.connect("autodoc-process-docstring", format_docstring)
    return {"parallel_read_safe": True}


def _read_page(app: Sphinx, page: str, source: list[str]) -> None:
    path = Path(app.srcdir) / f"{page}.md"
    text = resolve_links(source[0], path)
    for name, make in TABLES.items():
        if (marker := f"<!-- generate: {name} -->") in text:
            text = text.replace(marker, make())
    source[0] = text


def _read_included(app: Sphinx, path: Path, page: str, source: list[str]) -> None:
    source[0] = resolve_links(source[0], (Path(app.srcdir) / path).resolve())
