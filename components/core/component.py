"""@component: make a typed function a step of workflows.

    @component(version=1)
    def shout(ctx: Context, data: Dataset, params: ShoutParams) -> Dataset: ...

Inside a workflow `shout(ref, params)` adds a node to the graph; `shout.fn(ctx, data, params)` calls the function. An
artifact annotated as `start: Model | None = None` is optional.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

from raypath.components.core.artifacts import Artifact
from raypath.components.core.context import Context
from raypath.components.core.errors import GraphError
from raypath.components.core.params import Params

P = ParamSpec("P")
R = TypeVar("R", bound=Artifact)
Alive = Callable[[Context, Any], bool]


class Argument(NamedTuple):
    """Parameter of a component after `ctx`: an artifact or a Params model."""

    name: str
    kind: type[Any]
    optional: bool = False
    """True for an artifact that may be None."""
    default: bool = False
    """True if the default is None."""

    def __str__(self) -> str:
        none = (" | None" if self.optional else "") + (" = None" if self.default else "")
        return f"{self.name}: {self.kind.__name__}{none}"


class GraphBuilder(Protocol):
    """Collector of the nodes of a graph while a workflow function runs."""

    def add(self, component: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Add a call of `component` as a node and return the reference to its output."""
        ...


active_builder: contextvars.ContextVar[GraphBuilder | None] = contextvars.ContextVar("active_builder", default=None)
"""Builder of the workflow that is being traced; None outside a workflow."""


def call_site() -> str:
    """Return file:line of the nearest frame outside this package: the line in the user's workflow."""
    here = str(Path(__file__).parent)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Component(Generic[P, R]):
    """Typed function with a version. A call inside a workflow adds a node to its graph."""

    def __init__(self, fn: Callable[..., R], version: int, alive: Alive | None, label: str, by_shard: bool) -> None:
        self.fn = fn
        self.version = version
        self.alive = alive
        self.by_shard = by_shard
        self.name = label or fn.__name__
        self.path = f"{fn.__module__}:{fn.__name__}"
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__module__ = fn.__module__
        self._signature: tuple[tuple[Argument, ...], type[Artifact]] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        builder = active_builder.get()
        if builder is None:
            raise GraphError(
                f"{call_site()}: {self.name}(...) was called outside a workflow",
                fix=f"call it inside a @workflow function, or {self.name}.fn(ctx, ...) to run it",
            )
        return typing.cast(R, builder.add(self, args, kwargs))

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self._checked()[0]

    @property
    def output(self) -> type[Artifact]:
        return self._checked()[1]

    def _checked(self) -> tuple[tuple[Argument, ...], type[Artifact]]:
        # Types are resolved on first use: while the function is decorated, its module is not yet fully imported.
        if self._signature is None:
            self._signature = _read_signature(self.fn, self.path)
        return self._signature


def component(
    *, version: int, alive: Alive | None = None, name: str = "", by_shard: bool = False
) -> Callable[[Callable[Concatenate[Context, P], R]], Component[P, R]]:
    """Make a function `(ctx, *artifacts, *params) -> artifact` a component.

    Args:
        version: increase it if results change for a reason that the source does not show.
        alive: for results outside the store, such as an endpoint: return True if the result still exists.
        name: name of the step; the function's by default.
        by_shard: it reads datasets through `data.streaming` alone, which fetches shards from object storage as they are
            read; other components get the files of their inputs.

    Raises GraphError for a function with another signature.
    """

    def decorate(fn: Callable[Concatenate[Context, P], R]) -> Component[P, R]:
        names = list(inspect.signature(fn).parameters.values())
        if not names or names[0].name != "ctx":
            raise GraphError(f"component {fn.__name__} lacks `ctx` as its first parameter", fix=_SHAPE)
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in names):
            raise GraphError(f"component {fn.__name__} takes *args or **kwargs", fix=_SHAPE)
        return Component(fn, version, alive, name, by_shard)

    return decorate


_SHAPE = "write it as (ctx: Context, *artifacts, *params) -> Artifact, each with its type"


def _read_signature(fn: Callable[..., Any], path: str) -> tuple[tuple[Argument, ...], type[Artifact]]:
    try:
        hints = typing.get_type_hints(fn)
    except NameError as error:
        raise GraphError(f"component {path}: {error}", fix="import the type at the top of its module") from None
    parameters = list(inspect.signature(fn).parameters.values())[1:]
    arguments = tuple(_argument(parameter, hints.get(parameter.name), path) for parameter in parameters)
    output = hints.get("return")
    if not (isinstance(output, type) and issubclass(output, Artifact)):
        raise GraphError(f"component {path} does not return an Artifact", fix=_SHAPE)
    return arguments, output


def _argument(parameter: inspect.Parameter, hint: Any, path: str) -> Argument:
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [choice for choice in choices if choice is not types.NoneType]
    optional = len(kinds) < len(choices)
    kind = kinds[0] if len(kinds) == 1 else None
    wanted = Artifact if optional else (Artifact, Params)
    if not (isinstance(kind, type) and issubclass(kind, wanted)):
        raise GraphError(f"component {path}: {parameter.name} is neither an Artifact nor Params", fix=_SHAPE)
    return Argument(parameter.name, kind, optional, default=optional and parameter.default is None)
