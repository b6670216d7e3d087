"""@component: a plain typed function becomes a step that workflows can draw and the runner can run.

    @component(version=1)
    def shout(ctx: Context, data: Dataset, params: ShoutParams) -> Dataset: ...

`shout(ref, params)` inside a workflow draws; `shout.fn(ctx, data, params)` runs.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from components.core.artifacts import Artifact
from components.core.context import Context
from components.core.errors import GraphError
from components.core.params import Params

P = ParamSpec("P")
R = TypeVar("R", bound=Artifact)
Alive = Callable[[Context, Any], bool]


class Argument(NamedTuple):
    """One parameter of a component after `ctx`: an artifact or a Params model."""

    name: str
    kind: type[Any]


class Component(Generic[P, R]):
    """A checked function with a version. Calling it inside a workflow draws a node of the graph."""

    def __init__(self, fn: Callable[..., R], version: int, alive: Alive | None, label: str) -> None:
        self.fn = fn
        self.version = version
        self.alive = alive
        self.name = label or fn.__name__
        self.path = f"{fn.__module__}:{fn.__name__}"
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__module__ = fn.__module__
        self._signature: tuple[tuple[Argument, ...], type[Artifact]] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        from components.core.graph import draw

        return typing.cast(R, draw(self, args, kwargs))

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self._checked()[0]

    @property
    def output(self) -> type[Artifact]:
        return self._checked()[1]

    def _checked(self) -> tuple[tuple[Argument, ...], type[Artifact]]:
        # Types are read on first use, since a module may still be half imported while it is decorated.
        if self._signature is None:
            self._signature = _read_signature(self.fn, self.path)
        return self._signature


def component(
    *, version: int, alive: Alive | None = None, name: str = ""
) -> Callable[[Callable[Concatenate[Context, P], R]], Component[P, R]]:
    """Make a step of a function `(ctx, *artifacts, *params) -> artifact`.

    version: raise it when the meaning changes in a way the source does not show.
    alive: for what lives outside the store (a registered version, an endpoint): is it still there?
    Raises GraphError at once when the function's shape is wrong.
    """

    def decorate(fn: Callable[Concatenate[Context, P], R]) -> Component[P, R]:
        names = list(inspect.signature(fn).parameters.values())
        if not names or names[0].name != "ctx":
            raise GraphError(f"component {fn.__name__} lacks `ctx` as its first parameter", fix=_SHAPE)
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in names):
            raise GraphError(f"component {fn.__name__} takes *args or **kwargs", fix=_SHAPE)
        return Component(fn, version, alive, name)

    return decorate


_SHAPE = "write it as (ctx: Context, *artifacts, *params) -> Artifact, each with its type"


def _read_signature(fn: Callable[..., Any], path: str) -> tuple[tuple[Argument, ...], type[Artifact]]:
    try:
        hints = typing.get_type_hints(fn)
    except NameError as error:
        raise GraphError(f"component {path}: {error}", fix="import the type at the top of its module") from None
    arguments = []
    for name in list(inspect.signature(fn).parameters)[1:]:
        kind = hints.get(name)
        if not (isinstance(kind, type) and issubclass(kind, Artifact | Params)):
            raise GraphError(f"component {path}: {name} is neither an Artifact nor Params", fix=_SHAPE)
        arguments.append(Argument(name, kind))
    output = hints.get("return")
    if not (isinstance(output, type) and issubclass(output, Artifact)):
        raise GraphError(f"component {path} does not return an Artifact", fix=_SHAPE)
    return tuple(arguments), output
