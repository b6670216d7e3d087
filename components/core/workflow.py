"""@workflow: trace a function that calls components into a graph; no step runs.

A component's call returns a reference, which is an argument of the next call: an edge of the graph. A wrong edge raises
GraphError with both types, the file and the line.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from raypath.components.core.artifacts import Artifact
from raypath.components.core.component import Argument, Component, active_builder, call_site
from raypath.components.core.errors import GraphError
from raypath.components.core.graph import Graph, Node, Ref
from raypath.components.core.params import Params

W = TypeVar("W", bound=Params)


class Workflow(Generic[W]):
    """Function of one Params model that composes components. `trace` returns its graph."""

    def __init__(self, fn: Callable[[W], Artifact]) -> None:
        self.fn = fn
        self.name = fn.__name__
        self.path = f"{fn.__module__}:{fn.__name__}"
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__

    @property
    def params_type(self) -> type[W]:
        names = list(inspect.signature(self.fn).parameters)
        kind = typing.get_type_hints(self.fn).get(names[0]) if len(names) == 1 else None
        if not (isinstance(kind, type) and issubclass(kind, Params)):
            raise GraphError(f"workflow {self.path} does not take one Params model", fix="write it as (p: MyParams)")
        for name, field in kind.model_fields.items():
            if field.is_required():
                fix = f"give it one in {kind.__name__}; settings are changes of the defaults"
                raise GraphError(f"{kind.__name__}.{name} of workflow {self.path} has no default", fix=fix)
        return typing.cast(type[W], kind)

    def trace(self, params: W | None = None) -> Graph:
        """Trace the graph for these params, or for the defaults. Raises GraphError for a wrong edge."""
        chosen = params if params is not None else self.params_type()
        builder = _Builder()
        token = active_builder.set(builder)
        try:
            result: Any = self.fn(chosen)
        finally:
            active_builder.reset(token)
        if not isinstance(result, Ref):
            got = type(result).__name__
            raise GraphError(f"workflow {self.path} returned {got}", fix="return what a component's call returned")
        return Graph(self.name, chosen, tuple(builder.nodes), result)


def workflow(fn: Callable[[W], Artifact]) -> Workflow[W]:
    """Make a function of one Params model a workflow."""
    return Workflow(fn)


class _Builder:
    """GraphBuilder of one trace."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, component: Component[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Ref:
        """Add a node and return the reference to its output. Raises GraphError for a wrong edge."""
        location = call_site()
        wanted = component.arguments
        values = _bind(component, wanted, args, kwargs, location)
        for argument, value in zip(wanted, values, strict=True):
            _check(component, argument, value, location)
        same = sum(node.component.name == component.name for node in self.nodes)
        name = component.name if not same else f"{component.name}-{same + 1}"
        self.nodes.append(Node(name, component, values, location))
        return Ref(name, component.output)


def _bind(
    component: Component[Any, Any],
    wanted: Sequence[Argument],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    location: str,
) -> tuple[Any, ...]:
    names = [a.name for a in wanted]
    defaults = dict.fromkeys(a.name for a in wanted if a.default)
    given = defaults | dict(zip(names, args, strict=False)) | dict(kwargs)
    if len(args) > len(names) or set(given) != set(names):
        got = [*[type(a).__name__ for a in args], *kwargs]
        raise GraphError(
            f"{location}: {component.name} got ({', '.join(got)})",
            fix=f"it wants ({', '.join(map(str, wanted))})",
        )
    return tuple(given[name] for name in names)


def _check(component: Component[Any, Any], argument: Argument, value: Any, location: str) -> None:
    got = value.kind if isinstance(value, Ref) else type(value)
    if isinstance(value, Ref | Params) and issubclass(got, argument.kind):
        return
    if value is None and argument.optional:
        return
    where = f" (from {value})" if isinstance(value, Ref) else ""
    raise GraphError(
        f"{location}: {component.name} got {got.__name__}{where} for {argument.name}",
        fix=f"it wants {argument.kind.__name__}{' or None' if argument.optional else ''}",
    )
