"""@workflow: calling components inside it draws a graph; nothing runs.

An edge is an argument: the reference that one component's call returns, given to the next. A wrong edge fails
here, with both types, the file and the line.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from raypath.components.core.artifacts import Artifact
from raypath.components.core.component import Argument, Component
from raypath.components.core.errors import GraphError
from raypath.components.core.params import Params

W = TypeVar("W", bound=Params)


@dataclass(frozen=True)
class Ref:
    """A typed promise: what `step` will return, or a part of it."""

    step: str
    kind: type[Artifact]
    part: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Ref:
        parts = self.kind.part_types()
        if name in parts:
            return Ref(self.step, parts[name], (*self.part, name))
        if name.startswith("__"):
            raise AttributeError(name)
        have = f"its parts are {', '.join(parts)}" if parts else "it has no parts to hand on"
        raise GraphError(f"{_caller()}: {self} is a {self.kind.__name__} and has no part `{name}`", fix=have)

    def __str__(self) -> str:
        return ".".join([self.step, *self.part])


@dataclass(frozen=True)
class Node:
    """One step of a graph: a component with its arguments in the function's order; None is one left out."""

    name: str
    component: Component[Any, Any]
    arguments: tuple[Ref | Params | None, ...]
    place: str

    @property
    def inputs(self) -> tuple[Ref, ...]:
        return tuple(a for a in self.arguments if isinstance(a, Ref))


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after what it needs, and what the workflow returns."""

    workflow: str
    params: Params
    nodes: tuple[Node, ...]
    result: Ref

    @property
    def seed(self) -> int:
        """The workflow's field `seed`, 0 where it has none."""
        return int(getattr(self.params, "seed", 0))

    def describe(self) -> list[str]:
        """One line a step: what it takes from which step, and what it makes."""
        width = max(len(node.name) for node in self.nodes)
        lines = []
        for node in self.nodes:
            takes = ", ".join(str(ref) for ref in node.inputs) or "-"
            lines.append(f"{node.name:<{width}}  {node.component.output.__name__:<9} <- {takes}")
        return lines


class Workflow(Generic[W]):
    """A typed function of one Params model that composes components. `trace` draws its graph."""

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
        return typing.cast(type[W], kind)

    def trace(self, params: W | None = None) -> Graph:
        """Draw the graph for these params (defaults when None). Raises GraphError for a wrong edge."""
        chosen = params if params is not None else self.params_type()
        nodes: list[Node] = []
        token = _drawing.set(nodes)
        try:
            result: Any = self.fn(chosen)
        finally:
            _drawing.reset(token)
        if not isinstance(result, Ref):
            got = type(result).__name__
            raise GraphError(f"workflow {self.path} returned {got}", fix="return what a component's call returned")
        return Graph(self.name, chosen, tuple(nodes), result)


def workflow(fn: Callable[[W], Artifact]) -> Workflow[W]:
    """Make a workflow of a function of one Params model."""
    return Workflow(fn)


_drawing: contextvars.ContextVar[list[Node] | None] = contextvars.ContextVar("drawing", default=None)


def draw(component: Component[Any, Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Ref:
    """Add a node to the graph being traced and return the reference to its output."""
    place = _caller()
    nodes = _drawing.get()
    if nodes is None:
        raise GraphError(
            f"{place}: {component.name}(...) was called outside a workflow",
            fix=f"call it inside a @workflow function, or {component.name}.fn(ctx, ...) to run it",
        )
    wanted = component.arguments
    values = _bind(component, wanted, args, kwargs, place)
    for argument, value in zip(wanted, values, strict=True):
        _check(component, argument, value, place)
    same = sum(node.component.name == component.name for node in nodes)
    name = component.name if not same else f"{component.name}-{same + 1}"
    nodes.append(Node(name, component, values, place))
    return Ref(name, component.output)


def _bind(
    component: Component[Any, Any], wanted: Sequence[Argument], args: Sequence[Any], kwargs: dict[str, Any], place: str
) -> tuple[Any, ...]:
    names = [a.name for a in wanted]
    defaults = dict.fromkeys(a.name for a in wanted if a.default)
    given = defaults | dict(zip(names, args, strict=False)) | kwargs
    if len(args) > len(names) or set(given) != set(names):
        got = [*[type(a).__name__ for a in args], *kwargs]
        raise GraphError(
            f"{place}: {component.name} got ({', '.join(got)})",
            fix=f"it wants ({', '.join(map(str, wanted))})",
        )
    return tuple(given[name] for name in names)


def _check(component: Component[Any, Any], argument: Argument, value: Any, place: str) -> None:
    got = value.kind if isinstance(value, Ref) else type(value)
    if isinstance(value, Ref | Params) and issubclass(got, argument.kind):
        return
    if value is None and argument.optional:
        return
    where = f" (from {value})" if isinstance(value, Ref) else ""
    raise GraphError(
        f"{place}: {component.name} got {got.__name__}{where} for {argument.name}",
        fix=f"it wants {argument.kind.__name__}{' or None' if argument.optional else ''}",
    )


def _caller() -> str:
    """file:line of the nearest frame outside this package: the line in the user's workflow."""
    here = str(Path(__file__).parent)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
