"""Reference of the public names of `raypath`, and the format of their docstrings."""

import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

import raypath
from raypath.components.core.artifacts import Artifact

API = {
    "Functions": lambda name, obj: inspect.isfunction(obj) and "components.core" not in obj.__module__,
    "Errors": lambda name, obj: inspect.isclass(obj) and issubclass(obj, Exception),
    "Client and local model": lambda name, obj: (
        name in ("Client", "LocalModel", "Prediction", "Predictions", "Embeddings")
    ),
    "Results": lambda name, obj: getattr(obj, "__module__", "").startswith("raypath.deploy.api"),
    "Artifacts": lambda name, obj: inspect.isclass(obj) and issubclass(obj, Artifact),
    "Components, workflows and tasks": lambda name, obj: inspect.isfunction(obj) or inspect.isclass(obj),
    "Types of settings": lambda name, obj: True,
}
"""Groups of public names; a name belongs to the first that takes it."""


def api_reference() -> str:
    """Return directives that document every public name of `raypath`."""
    left = {name: getattr(raypath, name) for name in raypath.__all__}
    parts = []
    for title, takes in API.items():
        names = [name for name, obj in left.items() if takes(name, obj)]
        directives = [_directive(name, left.pop(name)) for name in names]
        if directives:
            parts.append(f"## {title}\n\n```{{eval-rst}}\n" + "\n".join(directives) + "\n```\n")
    return "\n".join(parts)


def _directive(name: str, obj: Any) -> str:
    if inspect.isclass(obj):
        kind = "autoexception" if issubclass(obj, Exception) else "autoclass"
        # Fields whose name says all have no docstring.
        fields = "   :undoc-members:\n   :exclude-members: model_config\n" if issubclass(obj, BaseModel) else ""
        return f".. {kind}:: raypath.{name}\n   :members:\n{fields}"
    if inspect.isfunction(obj):
        return f".. autofunction:: raypath.{name}\n"
    return f".. py:data:: raypath.{name}\n\n   {_annotated(obj)}\n"


def _annotated(kind: Any) -> str:
    """Describe an annotated type, such as `float`, at least 0."""
    kind, *marks = get_args(kind)
    words = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
    found = [
        f"{text} {getattr(limit, name):g}"
        for mark in marks
        for limit in getattr(mark, "metadata", [])
        for name, text in words.items()
        if hasattr(limit, name)
    ]
    return ", ".join([f"``{kind.__name__}``", *found])


def format_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show the code of `Example:` sections and aligned columns as they are."""
    text = "\n".join(lines).replace("\nExample:\n", "\n.. code-block:: python\n\n")
    paragraphs = [_literal(part) if _is_table(part) else part for part in text.split("\n\n")]
    lines[:] = "\n\n".join(paragraphs).splitlines()
    if what not in ("attribute", "data", "property"):  # whose text before a colon napoleon takes for a type
        lines[:] = GoogleDocstring(lines, Config(), app, what, name, obj, options).lines()


def _is_table(paragraph: str) -> bool:
    lines = paragraph.splitlines()
    return len(lines) > 1 and all(re.search(r"\S {3,}\S", line) for line in lines)


def _literal(paragraph: str) -> str:
    return "::\n\n" + "\n".join(f"   {line}" for line in paragraph.splitlines())
