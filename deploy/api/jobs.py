"""From a workflow and settings, as a user gives them in Python, to a traced launch request with its launcher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.errors import GraphError, ParamsError
from raypath.components.core.graph import Graph
from raypath.components.core.params import Params, flatten
from raypath.components.core.workflow import Workflow
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.launchers import LAUNCHERS, Launcher, RunRequest
from raypath.deploy.launchers import prepare as prepare_launch

Flow = str | Workflow[Any]
GivenSettings = Mapping[str, Any] | Params | None


def prepare(
    workflow: Flow, settings: GivenSettings, on: str, home: Path, fresh: str | Iterable[str], address: str
) -> tuple[Launcher, RunRequest, Params]:
    """Return the launcher, the request and the launcher's settings.

    Raises:
        GraphError: Unknown workflow, or one that does not fit together.
        ParamsError: Unknown launcher, setting or step.
    """
    if on not in LAUNCHERS:
        raise ParamsError(f"on={on!r} is no launcher", fix=f"use one of {', '.join(LAUNCHERS)}")
    name = _path_of(workflow)
    steps = (fresh,) if isinstance(fresh, str) else tuple(fresh or ())
    launcher, job, params = prepare_launch(on, name, changes_of(settings), home, steps, address)
    check_steps(job.graph, steps)
    _check_importable(job.graph)
    return launcher, job, params


def _path_of(workflow: Flow) -> str:
    if isinstance(workflow, Workflow):
        return workflow.path
    if not isinstance(workflow, str):
        named = getattr(workflow, "__name__", "")
        got = f"function {named}" if named else type(workflow).__name__
        raise GraphError(
            f"workflow is a {got}", fix="give a name of `raypath list`, package.module:function, or a @workflow"
        )
    return workflow


def changes_of(settings: GivenSettings) -> dict[str, Any]:
    """Return settings as dotted keys: of nested or dotted mappings, or what a Params instance changes."""
    if settings is None:
        return {}
    if isinstance(settings, Params):
        usual = type(settings)().flat()
        return {key: value for key, value in settings.flat().items() if key not in usual or usual[key] != value}
    if not isinstance(settings, Mapping):
        raise ParamsError(f"settings is a {type(settings).__name__}", fix='give a dict such as {"finetune.epochs": 3}')
    plain = {str(key): _plain(value) for key, value in settings.items()}
    return dict(flatten(plain))


def _plain(value: Any) -> Any:
    """A value as JSON has it; Params inside a mapping become nested mappings."""
    if isinstance(value, Params):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    # Numbers and arrays of NumPy, as a loop over a grid has them.
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


def _check_importable(graph: Graph) -> None:
    """Steps run in other processes, which import their component."""
    for node in graph.nodes:
        module, _, name = node.component.path.partition(":")
        if module == "__main__":
            raise GraphError(
                f"component {name} is defined in a notebook or in the script that runs",
                fix="move it into a module beside it, and import it from there",
            )
