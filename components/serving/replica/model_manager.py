"""The versions that a replica holds: which one answers, and how another takes its place.

A version is loaded beside the one in service, its files and its answers are checked against what was recorded when it
was registered, and only then it is swapped in. One that fails leaves everything as it is, and the reason is told.
"""

from __future__ import annotations

import asyncio
import logging
import random

from raypath.components.core.errors import DataError, RaypathError, Unavailable
from raypath.components.registry import aliases
from raypath.components.serving.model_versions import OTHER, LoadedModel, LoadFault, ModelVersion, ReplicaPlan
from raypath.components.serving.replica.loader import load
from raypath.components.serving.replica.model_pool import ModelPool
from raypath.components.tasks.base import Task
from raypath.components.tracking import tags

log = logging.getLogger("ray.serve")


class ModelManager:
    """What a replica holds. `take` and `pick` run on its event loop.

    kept: most other models; 0: as many as fit in memory. separate_adapters: open models so that they share a base.
    """

    def __init__(
        self, tracking: str, kind: type[Task], threads: int, kept: int = 0, separate_adapters: bool = False
    ) -> None:
        self.tracking, self.kind, self.threads, self.separate_adapters = tracking, kind, threads, separate_adapters
        self.main: LoadedModel | None = None
        self.canary: LoadedModel | None = None
        self.shadow: LoadedModel | None = None
        self.others = ModelPool(self._load, kept)
        self.plan: ReplicaPlan | None = None
        self.faults: dict[str, LoadFault] = {}
        """Role (main, canary, shadow, `model NAME`) -> why what was asked for is not in service."""
        self._one = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """The models that may be asked for, the main one first."""
        plan = self.plan
        return [] if plan is None else [plan.main.name, *(other.name for other in plan.also)]

    async def take(self, plan: ReplicaPlan) -> None:
        """Hold what the plan says, as far as it can be loaded. Raises what `load` raises when nothing is in service."""
        async with self._one:
            self.faults = {}
            main = self.main = await self._main(plan)
            for role in ("canary", "shadow"):
                wanted = getattr(plan, role)
                same = wanted is None or wanted.version == main.version
                setattr(self, role, None if same else await self._extra(role, wanted, getattr(self, role)))
            for wanted, error in await self.others.take(plan.also):
                await asyncio.to_thread(self._refuse, OTHER + wanted.name, wanted, error)
            self.plan = plan

    def roles(self) -> list[tuple[str, LoadedModel]]:
        """What is held of the main model, by role."""
        held = {"main": self.main, "canary": self.canary, "shadow": self.shadow}
        return [(role, loaded) for role, loaded in held.items() if loaded is not None]

    def held(self, version: int = 0, steady: bool = False) -> LoadedModel | None:
        """What answers a request for the main model: this version; if any will do, now and then the canary."""
        if version:
            return next((one for one in (self.main, self.canary) if one and one.version == version), None)
        return self.main if steady else self.choose()

    def choose(self) -> LoadedModel:
        """The version that answers a request for the main model: now and then the canary."""
        assert self.main is not None
        assert self.plan is not None
        return self.canary if self.canary and random.random() * 100 < self.plan.percent else self.main

    async def other(self, name: str) -> LoadedModel:
        """Another model of the plan, loaded when it is not held. Raises KeyError for an unknown name, RaypathError."""
        if (held := self.others.get(name)) is not None:
            return held
        async with self._one:
            wanted = self.others.wanted[name]
            try:
                found = await self.others.open(name)
            except RaypathError as error:
                if self.others.noted(name, error):
                    await asyncio.to_thread(self._refuse, OTHER + name, wanted, error)
                raise
            self.faults.pop(OTHER + name, None)
            return found

    def version_of(self, name: str) -> int:
        """The version of a model that is held here, 0 for none."""
        plan = self.plan
        held = self.main if plan and plan.main.name == name else self.others.held.get(name)
        return held.version if held else 0

    async def _main(self, plan: ReplicaPlan) -> LoadedModel:
        if self.main is not None and plan.main.version == self.main.version:
            return self.main
        try:
            return self._fitting(await asyncio.to_thread(self._load, plan.main))
        except RaypathError as error:
            await asyncio.to_thread(self._refuse, "main", plan.main, error)
            if self.main is not None:
                return self.main
            if plan.before is None:
                raise
            return self._fitting(await asyncio.to_thread(self._load, plan.before))

    async def _extra(self, role: str, wanted: ModelVersion, held: LoadedModel | None) -> LoadedModel | None:
        """A canary or a shadow; without one the main version answers alone."""
        if held is not None and held.version == wanted.version:
            return held
        try:
            return self._fitting(await asyncio.to_thread(self._load, wanted))
        except RaypathError as error:
            await asyncio.to_thread(self._refuse, role, wanted, error)
            return None

    def _load(self, wanted: ModelVersion) -> LoadedModel:
        try:
            return load(self.tracking, wanted, self.threads, self.separate_adapters)
        except RaypathError:
            raise
        except Exception as error:  # noqa: BLE001
            # Of torch, ONNX Runtime or the tokenizer: whatever it is, what is in service stays there.
            told = " ".join(str(error).split())[:200]
            raise DataError(f"{type(error).__name__}: {told}", fix="register the model again") from None

    def _fitting(self, found: LoadedModel) -> LoadedModel:
        """Raise DataError where clients would be answered in another form than the one they were promised."""
        if type(found.task) is not self.kind:
            told = (
                f"it is a {found.metadata.task} of {found.metadata.label_kind} labels, and another kind is in service"
            )
            raise DataError(told, fix="run a workflow that serves it")
        return found

    def _refuse(self, role: str, wanted: ModelVersion, error: RaypathError) -> None:
        """Tell the registry, the log, and last `faults`, since who reads those may read the tag next."""
        fault = LoadFault(
            name=wanted.name, version=wanted.version, reason=error.what, rejected=not isinstance(error, Unavailable)
        )
        log.error("%s of %s: %s", role, wanted.name, fault.message())
        try:
            if fault.rejected:
                aliases.set_tag(self.tracking, wanted.name, wanted.version, tags.REJECTED, error.what)
        except Exception:  # noqa: BLE001 - MLflow may be what is away; the replica tells it to who asks, and its log
            log.warning("MLflow was not told of it")
        self.faults[role] = fault
