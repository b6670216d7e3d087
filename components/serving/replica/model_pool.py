"""LRU pool of additional models: loaded on first request, least recently used evicted when memory runs out.

A new version of a loaded model is loaded and checked next to the old one, which stays in service if the new one fails.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from raypath.components.core.errors import RaypathError
from raypath.components.inference.memory import InsufficientMemory
from raypath.components.serving.model_versions import ServedVersion

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import ModelVersion

RETRY_SECONDS = 10.0
"""Seconds before a model that failed to load is tried again."""


V = TypeVar("V", bound=ServedVersion)


class ModelPool(Generic[V]):
    """Additional models of a replica. Used on one event loop; loading happens under the owner's lock.

    Args:
        load_version: Loads one version, on a thread. Raises RaypathError, InsufficientMemory among them.
        max_models: Most models to keep loaded; 0 keeps as many as fit in memory.
    """

    def __init__(self, load_version: Callable[[ModelVersion], V], max_models: int = 0) -> None:
        self.load_version, self.max_models = load_version, max_models
        self.loaded: OrderedDict[str, V] = OrderedDict()
        """By name, least recently used first."""
        self.versions: dict[str, ModelVersion] = {}
        """Planned version by name."""
        self._failures: dict[str, tuple[RaypathError, float]] = {}
        """By name: the error, and the time from which loading is retried."""

    async def update(self, extra_models: Iterable[ModelVersion]) -> list[tuple[ModelVersion, RaypathError]]:
        """Adopt the planned versions: update loaded models, drop those no longer planned.

        Returns the versions that failed to load; the old version of such a model stays.
        """
        self.versions, self._failures = {version.name: version for version in extra_models}, {}
        failed = []
        for name, model in list(self.loaded.items()):
            wanted = self.versions.get(name)
            if wanted is None:
                del self.loaded[name]
            elif wanted.version != model.version:
                try:
                    self.loaded[name] = await asyncio.to_thread(self.load_version, wanted)
                except RaypathError as error:
                    failed.append((wanted, error))
        return failed

    def get(self, name: str) -> V | None:
        """Return a model if it is loaded, and mark it as recently used."""
        if name in self.loaded:
            self.loaded.move_to_end(name)
        return self.loaded.get(name)

    async def load(self, name: str) -> V:
        """Load a model. Raises KeyError for an unplanned name, RaypathError; a failure is raised again for a while."""
        if (found := self.get(name)) is not None:  # a concurrent request may have loaded it
            return found
        error, until = self._failures.get(name, (None, 0.0))
        if error is not None and time.monotonic() < until:
            raise error
        self.loaded[name] = await self._load_evicting(self.versions[name])
        self._failures.pop(name, None)
        while self.max_models and len(self.loaded) > self.max_models:
            self.loaded.popitem(last=False)
        return self.loaded[name]

    async def _load_evicting(self, wanted: ModelVersion) -> V:
        """Load a model; evict the least recently used ones while memory is insufficient."""
        while True:
            try:
                return await asyncio.to_thread(self.load_version, wanted)
            except InsufficientMemory:
                if not self.loaded:
                    raise
                self.loaded.popitem(last=False)

    def remember_failure(self, name: str, error: RaypathError) -> bool:
        """Remember that a model failed to load; returns True if this is a new error."""
        if self._failures.get(name, (None, 0.0))[0] is error:
            return False
        self._failures[name] = error, time.monotonic() + RETRY_SECONDS
        return True
