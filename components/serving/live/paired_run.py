"""Both versions on one request that has had its response, in random order: outputs, seconds and errors."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

from fastapi import HTTPException

from raypath.components.inference.dynamic_batching import QueueFull
from raypath.components.serving.metering.holder import AccessError
from raypath.components.serving.model_versions import ServedVersion

T = TypeVar("T")
V = TypeVar("V", bound=ServedVersion)


@dataclass
class PairedRun(Generic[T]):
    """Outputs, seconds and errors of two versions, by version."""

    outputs: dict[int, T] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)


async def run_both(run: Callable[[V], Awaitable[T]], champion: V, challenger: V) -> PairedRun[T]:
    """Run both versions. Both run again, since the response was made under other conditions than what runs after it.

    Raises what is not a failure of a version.
    """
    found = PairedRun[T]()
    for each in random.sample([champion, challenger], 2):
        began = perf_counter()
        try:
            found.outputs[each.version] = await run(each)
        except Exception as error:
            if not is_failure(error):
                raise
            found.errors[each.version] = error
        found.seconds[each.version] = perf_counter() - began
    return found


def is_failure(error: Exception) -> bool:
    """Return True for an error of the model, and not of the request or of a full queue."""
    if isinstance(error, HTTPException):
        return error.status_code >= 500
    return not isinstance(error, QueueFull | AccessError)
