"""Load the model versions of a replica and swap them without interrupting requests.

A version is loaded next to the one in service; its files and its predictions are checked against those recorded at
registration, and only then is it swapped in. A version that fails leaves everything as it is, and the reason is kept.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection
from pathlib import Path
from typing import Generic, TypeVar, cast

from raypath.components.core.columns import Column, inputs_of
from raypath.components.core.errors import DataError, RaypathError, Unavailable
from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.registry import aliases
from raypath.components.serving.model_versions import LoadFault, ModelVersion, ReplicaPlan, Role, ServedVersion
from raypath.components.serving.replica.loader import load
from raypath.components.serving.replica.model_pool import ModelPool
from raypath.components.tasks.base import Task
from raypath.components.tracking.tags import BASE, REJECTED

log = logging.getLogger("ray.serve")
V = TypeVar("V", bound=ServedVersion)


class ModelManager(Generic[V]):
    """Model versions of a replica. All methods run on its event loop.

    Args:
        task: The task that clients were promised; a version of another one is rejected.
        columns: The input columns that clients were promised; a version with others is rejected.
        tasks: Tasks that models may name in addition to the built-in ones.
        signing: Folder of the public keys whose signatures are trusted, in addition to those of the environment.
        max_models: Most additional models to keep loaded; 0 keeps as many as fit in memory.
        separate_adapters: Open models so that they share one base (see `Engine`).
    """

    def __init__(
        self,
        tracking: str,
        task: type[Task],
        threads: int,
        columns: tuple[Column, ...] = (),
        max_models: int = 0,
        separate_adapters: bool = False,
        tasks: Collection[str] = (),
        signing: Path | None = None,
    ) -> None:
        self.tracking, self.task, self.threads, self.separate_adapters = tracking, task, threads, separate_adapters
        self.tasks, self.signing, self.columns = tasks, signing, columns
        self.active: dict[Role, V] = {}
        """Versions of the main model in service."""
        self.pool = ModelPool(self._load, max_models)
        self.plan: ReplicaPlan | None = None
        self.faults: dict[Role, LoadFault] = {}
        self.model_faults: dict[str, LoadFault] = {}
        """Faults of additional models, by name."""
        self._weights = WeightTable()
        self._lock = asyncio.Lock()

    @property
    def main(self) -> V | None:
        """The version in service, None before the first plan."""
        return self.active.get(Role.MAIN)

    @property
    def all_faults(self) -> list[LoadFault]:
        """Faults of the main model and of additional ones."""
        return [*self.faults.values(), *self.model_faults.values()]

    async def apply(self, plan: ReplicaPlan) -> None:
        """Load the versions of a plan, as far as possible. Raises what `load` raises if nothing is in service."""
        async with self._lock:
            self.faults, self.model_faults = {}, {}
            main = self.active[Role.MAIN] = await self._load_main(plan)
            for role in (Role.CANARY, Role.SHADOW):
                wanted = plan.version(role)
                same = wanted is None or wanted.version == main.version
                found = None if wanted is None or same else await self._load_role(role, wanted, self.active.get(role))
                if found is None:
                    self.active.pop(role, None)
                else:
                    self.active[role] = found
            for wanted, error in await self.pool.update(plan.extra_models):
                await self._record_fault(None, wanted, error)
            self.plan = plan

    def select(self, version: int = 0, stable: bool = False) -> V | None:
        """Return the version for a request to the main model: the given one, else the canary by its share.

        stable: never the canary.
        """
        if version:
            served = (self.active.get(role) for role in (Role.MAIN, Role.CANARY))
            return next((one for one in served if one and one.version == version), None)
        return self.main if stable else self.choose()

    def choose(self) -> V:
        """Return the main version, or at random, by its share, the canary."""
        assert self.plan is not None
        canary = self.active.get(Role.CANARY)
        return canary if canary and random.random() * 100 < self.plan.canary_percent else self.active[Role.MAIN]

    async def additional(self, name: str) -> V:
        """Return an additional model of the plan, loaded if necessary. Raises KeyError for an unknown name."""
        if (found := self.pool.get(name)) is not None:
            return found
        async with self._lock:
            wanted = self.pool.versions[name]
            try:
                found = await self.pool.load(name)
            except RaypathError as error:
                if self.pool.remember_failure(name, error):
                    await self._record_fault(None, wanted, error)
                raise
            self.model_faults.pop(name, None)
            return found

    def version_of(self, name: str) -> int:
        """Return the loaded version of a model, 0 for none."""
        plan = self.plan
        found = self.main if plan and plan.main.name == name else self.pool.loaded.get(name)
        return found.version if found else 0

    def base_of(self, name: str) -> str:
        """Return the base of a model, loaded or planned; "" if it is not known."""
        main = self.main
        found = main if main is not None and name == main.name else self.pool.loaded.get(name)
        planned = self.pool.versions.get(name)
        return found.metadata.base if found else planned.tags.get(BASE, "") if planned else ""

    async def _load_main(self, plan: ReplicaPlan) -> V:
        main = self.main
        if main is not None and plan.main.version == main.version:
            return main
        try:
            return self._checked(await asyncio.to_thread(self._load, plan.main))
        except RaypathError as error:
            await self._record_fault(Role.MAIN, plan.main, error)
            if main is not None:
                return main
            if plan.fallback is None:
                raise
            return self._checked(await asyncio.to_thread(self._load, plan.fallback))

    async def _load_role(self, role: Role, wanted: ModelVersion, held: V | None) -> V | None:
        """Load a canary or a shadow; if it fails, the main version serves all requests."""
        if held is not None and held.version == wanted.version:
            return held
        try:
            return self._checked(await asyncio.to_thread(self._load, wanted, promoted=False))
        except RaypathError as error:
            await self._record_fault(role, wanted, error)
            return None

    def _load(self, wanted: ModelVersion, promoted: bool = True) -> V:
        """Load a version. promoted: it has to have a signed promotion, as all but a canary and a shadow."""
        try:
            return self._open(wanted, promoted)
        except (RaypathError, KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as error:  # noqa: BLE001
            # An error of PyTorch, OpenVINO or the tokenizer, or code that ends its process: the version in service
            # stays, and so does the replica.
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise DataError(reason, fix="register the model again") from None

    def _open(self, wanted: ModelVersion, promoted: bool) -> V:
        """Fetch and open a version; another kind of model overrides it."""
        more = self._weights, self.tasks, self.signing, promoted
        return cast(V, load(self.tracking, wanted, self.threads, self.separate_adapters, *more))

    def _checked(self, found: V) -> V:
        """Raise DataError if the responses would have another form than the one promised to clients."""
        if type(found.task) is not self.task:
            metadata = found.metadata
            raise DataError(
                f"it is a {metadata.task} of {metadata.label_kind} labels, and another kind is in service",
                fix="run a workflow that serves it",
            )
        if inputs_of(found.metadata.columns) != inputs_of(self.columns):
            names = ", ".join(column.name for column in inputs_of(found.metadata.columns))
            raise DataError(
                f"its inputs are {names}, and a version with others is in service", fix="run a workflow that serves it"
            )
        return found

    async def _record_fault(self, role: Role | None, wanted: ModelVersion, error: RaypathError) -> None:
        """Record a fault. role: None for an additional model."""
        rejected = not isinstance(error, Unavailable)
        fault = LoadFault(name=wanted.name, version=wanted.version, reason=error.what, rejected=rejected)
        log.error("%s of %s: %s", role or "additional model", wanted.name, fault.message())
        # The registry first: whoever reads the faults may read the tag next.
        await asyncio.to_thread(self._tag, fault)
        if role is None:
            self.model_faults[wanted.name] = fault
        else:
            self.faults[role] = fault

    def _tag(self, fault: LoadFault) -> None:
        try:
            if fault.rejected:
                aliases.set_tag(self.tracking, fault.name, fault.version, REJECTED, fault.reason)
        except Exception:  # noqa: BLE001 - MLflow may be unavailable; status and log have the reason
            log.warning("the rejection could not be recorded in MLflow")
