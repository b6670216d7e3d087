"""Find workflows: by name in `workflows/`, or as `package.module:function` in anybody's package."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from raypath.components.core.errors import GraphError, RaypathError, UserError
from raypath.components.core.workflow import Workflow

HERE = "raypath.workflows"


def names() -> dict[str, str]:
    """The workflows of this checkout and the first line of each one's docstring; none is imported."""
    spec = importlib.util.find_spec(HERE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = {}
    for path in sorted(p for folder in folders for p in Path(folder).glob("*.py") if p.stem != "__init__"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.partition("\n")[0]
    return found


def load(name: str) -> Workflow[Any]:
    """The workflow of that name. Raises GraphError with the nearest name for an unknown one."""
    if ":" not in name:
        known = names()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = (
                f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}, or give package.module:function"
            )
            raise GraphError(f"no workflow {name}", fix=fix)
        name = f"{HERE}.{name}:{name}"
    return _import(name)


def load_there(name: str, where: str) -> Workflow[Any]:
    """The same on a machine that the user is not at: what is not found, `where` lacks. Raises UserError."""
    try:
        return load(name)
    except (GraphError, ImportError) as error:
        what = error.what if isinstance(error, RaypathError) else str(error)
        raise UserError(f"{where} lacks {name}: {what}", fix="build the image from the checkout with it") from None


def _import(path: str) -> Workflow[Any]:
    module, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        # A console script does not look in the folder it is called from; a team's own package lies there.
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise GraphError(f"cannot import {module}: {error}", fix="run from the folder that holds it") from None
    if not isinstance(found, Workflow):
        raise GraphError(f"{path} is not a workflow", fix="decorate the function with @workflow")
    return found
