"""Models that a replica answers for beside its main one: loaded when first asked for, the longest unused goes.

A new version of one that is held is loaded and checked beside the old one, which stays where the new one fails.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from raypath.components.core.errors import RaypathError
from raypath.components.inference.memory import InsufficientMemory

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel, ModelVersion

PAUSE = 10.0
"""Seconds in which a model that could not be loaded is not tried again."""


class ModelPool:
    """What is held of the other models; used on one event loop, loading under its owner's lock.

    load: of one version, on a thread; raises RaypathError, of it InsufficientMemory. kept: most that are held; 0: as
    many as fit in memory.
    """

    def __init__(self, load: Callable[[ModelVersion], LoadedModel], kept: int = 0) -> None:
        self.load, self.kept = load, kept
        self.held: OrderedDict[str, LoadedModel] = OrderedDict()
        """By name, the one asked for longest ago first."""
        self.wanted: dict[str, ModelVersion] = {}
        self._failed: dict[str, tuple[RaypathError, float]] = {}
        """By name: why it could not be loaded, and when it may be tried again."""

    async def take(self, also: Iterable[ModelVersion]) -> list[tuple[ModelVersion, RaypathError]]:
        """Hold what is wanted now of what is held; returns what could not be loaded, whose old version stays."""
        self.wanted, self._failed = {wanted.name: wanted for wanted in also}, {}
        failed = []
        for name, held in list(self.held.items()):
            wanted = self.wanted.get(name)
            if wanted is None:
                del self.held[name]
            elif wanted.version != held.version:
                try:
                    self.held[name] = await asyncio.to_thread(self.load, wanted)
                except RaypathError as error:
                    failed.append((wanted, error))
        return failed

    def get(self, name: str) -> LoadedModel | None:
        """The model if it is held; it counts as asked for."""
        if name in self.held:
            self.held.move_to_end(name)
        return self.held.get(name)

    async def open(self, name: str) -> LoadedModel:
        """Load what is not held. Raises KeyError for a name that is not wanted, RaypathError, the same for a PAUSE."""
        if (held := self.get(name)) is not None:  # someone else may have been faster
            return held
        error, until = self._failed.get(name, (None, 0.0))
        if error is not None and time.monotonic() < until:
            raise error
        self.held[name] = await self._loaded(self.wanted[name])
        self._failed.pop(name, None)
        while self.kept and len(self.held) > self.kept:
            self.held.popitem(last=False)
        return self.held[name]

    async def _loaded(self, wanted: ModelVersion) -> LoadedModel:
        """Load a model; while there is no room for it, those that were not asked for longest go."""
        while True:
            try:
                return await asyncio.to_thread(self.load, wanted)
            except InsufficientMemory:
                if not self.held:
                    raise
                self.held.popitem(last=False)

    def noted(self, name: str, error: RaypathError) -> bool:
        """Note that a model could not be loaded; whether this is news."""
        if self._failed.get(name, (None, 0.0))[0] is error:
            return False
        self._failed[name] = error, time.monotonic() + PAUSE
        return True
