"""Workflow graphs: references to outputs, nodes, and the graph that a trace returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.component import Component
from raypath.components.core.errors import GraphError
from raypath.components.core.graph_context import call_site
from raypath.components.core.params import Params


@dataclass(frozen=True)
class Ref:
    """A typed promise: what `step` will return, or a part of it."""

    step: str
    kind: type[Artifact]
    fields: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Ref:
        parts = self.kind.nested_types()
        if name in parts:
            return Ref(self.step, parts[name], (*self.fields, name))
        if name.startswith("__"):
            raise AttributeError(name)
        have = f"its parts are {', '.join(parts)}" if parts else "it has no parts to hand on"
        raise GraphError(f"{call_site()}: {self} is a {self.kind.__name__} and has no part `{name}`", fix=have)

    def __str__(self) -> str:
        return ".".join([self.step, *self.fields])


@dataclass(frozen=True)
class Node:
    """One step of a graph: a component with its arguments in the function's order; None is one left out."""

    name: str
    component: Component[Any, Any]
    arguments: tuple[Ref | Params | None, ...]
    location: str

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
