"""Errors of Ray tasks and actors: find the exception that the user's or Raypath's code raised below Ray's wrappers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raypath.components.core.errors import RaypathError

_MEMORY = re.compile(r"Memory on the node .*? was ([\d.]+)GB used / ([\d.]+)GB limit")
"""Ray's message about a process that it ended for lack of memory (Ray 2.60)."""


def unwrap(error: BaseException) -> BaseException:
    """Return the exception that the code in a worker raised; the error itself where Ray kept only its text."""
    raised = [each for each in _chain(error) if not type(each).__module__.startswith("ray.")]
    found = next((each for each in _chain(error) if isinstance(each, RaypathError)), None)
    return _rebuilt(found) if found else raised[-1] if raised else error


def worker_died(error: BaseException) -> bool:
    """Return True when Ray lost the worker or node, False when the code in the task raised."""
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


def out_of_memory(message: str) -> str:
    """Return "a node ran out of memory (USED of LIMIT GB in use)" if Ray's message says so, else ""."""
    found = _MEMORY.search(message)
    return f"a node ran out of memory ({found[1]} of {found[2]} GB in use)" if found else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        # A failed task has its error as `cause`, an actor that failed in its constructor has it among its arguments.
        inner = [getattr(following, "cause", None), *following.args]
        following = next((each for each in inner if isinstance(each, BaseException)), following.__cause__)


def _rebuilt(error: RaypathError) -> RaypathError:
    """Return a plain instance: Ray's is of a class made at run time, with the worker's stack trace as its text."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == RaypathError.__module__)
    assert issubclass(kind, RaypathError)
    return kind(error.what, fix=error.fix, step=error.step)
