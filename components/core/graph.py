"""Workflow graph: nodes, and references to their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.component import Component, call_site
from raypath.components.core.errors import GraphError
from raypath.components.core.params import Params


@dataclass(frozen=True)
class Ref:
    """Typed reference to the output of a step, or to a nested artifact of it by `fields`."""

    step: str
    kind: type[Artifact]
    fields: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Ref:
        types = self.kind.nested_types()
        if name in types:
            return Ref(self.step, types[name], (*self.fields, name))
        if name.startswith("__"):
            raise AttributeError(name)
        fix = f"its fields are {', '.join(types)}" if types else "it has no nested artifacts"
        raise GraphError(f"{call_site()}: {self} is a {self.kind.__name__} and has no field `{name}`", fix=fix)

    def __str__(self) -> str:
        return ".".join([self.step, *self.fields])


@dataclass(frozen=True)
class Node:
    """Step of a graph: a component with its arguments in the function's order, None for an omitted one.

    location: file:line of the call.
    """

    name: str
    component: Component[Any, Any]
    arguments: tuple[Ref | Params | None, ...]
    location: str

    @property
    def inputs(self) -> tuple[Ref, ...]:
        return tuple(a for a in self.arguments if isinstance(a, Ref))


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, and a reference to the result of the workflow."""

    workflow: str
    params: Params
    nodes: tuple[Node, ...]
    result: Ref

    @property
    def seed(self) -> int:
        """Value of the workflow's field `seed`, 0 if it has none."""
        return int(getattr(self.params, "seed", 0))

    def describe(self) -> list[str]:
        """Describe each step in a line: its name, its output type and its inputs."""
        width = max(len(node.name) for node in self.nodes)
        kind_width = max(len(node.component.output.__name__) for node in self.nodes)
        lines = []
        for node in self.nodes:
            inputs = ", ".join(str(ref) for ref in node.inputs) or "-"
            lines.append(f"{node.name:<{width}}  {node.component.output.__name__:<{kind_width}} <- {inputs}")
        return lines
