"""Workflow loader: by name from `raypath.workflows`, or by `package.module:function` from any package."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from raypath.components.core.errors import GraphError, RaypathError, UserError
from raypath.components.core.workflow import Workflow
from raypath.deploy.execution.process import search_current_folder

BUILT_IN = "raypath.workflows"


def built_in_workflows() -> dict[str, str]:
    """Return the names of the built-in workflows and the first line of each docstring; none is imported."""
    spec = importlib.util.find_spec(BUILT_IN)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = {}
    for path in sorted(p for folder in folders for p in Path(folder).glob("*.py") if p.stem != "__init__"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.partition("\n")[0]
    return found


def load_workflow(name: str) -> Workflow[Any]:
    """Load a workflow. Raises GraphError, with the nearest name for an unknown one."""
    if ":" not in name:
        known = built_in_workflows()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}, or give package.module:function"
            raise GraphError(f"no workflow {name}", fix=fix)
        name = f"{BUILT_IN}.{name}:{name}"
    return _import(name)


def load_remote(name: str, where: str) -> Workflow[Any]:
    """Load a workflow in a container or on a cluster node. Raises UserError that names `where` the code is missing."""
    try:
        return load_workflow(name)
    except (GraphError, ImportError) as error:
        what = error.what if isinstance(error, RaypathError) else str(error)
        raise UserError(f"{where} lacks {name}: {what}", fix="build the image from the checkout with it") from None


def _import(path: str) -> Workflow[Any]:
    module, _, attribute = path.partition(":")
    search_current_folder()
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise GraphError(f"cannot import {module}: {error}", fix="run from the folder that contains it") from None
    if not isinstance(found, Workflow):
        raise GraphError(f"{path} is not a workflow", fix="decorate the function with @workflow")
    return found
