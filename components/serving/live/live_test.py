"""The live test of one replica: which version is on trial, and what its requests show."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from raypath.components.core.arrays import Array
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import trusted_keys
from raypath.components.registry.signing.records import verify_permission
from raypath.components.serving.live.counts import LiveCounts
from raypath.components.serving.live.decision import LiveRules, progress
from raypath.components.serving.live.paired_run import is_failure, run_both
from raypath.components.serving.model_versions import LoadedModel, ReplicaPlan, Role, ServedVersion
from raypath.components.tasks.catalog import task_type

if TYPE_CHECKING:
    from raypath.components.serving.params import ServeParams
    from raypath.components.serving.spec import EndpointSpec

Infer = Callable[[LoadedModel, list[str]], Awaitable[Array]]
"""Returns the raw outputs of a version for texts, [N, outputs]."""
V = TypeVar("V", bound=ServedVersion)
NO_PERMISSION = "live requests do not decide on it: it has no permission, or one for another champion"


@dataclass(frozen=True)
class Trial:
    """A version on trial. run: MLflow's id of the run that collects the counts of all replicas."""

    name: str
    version: int
    previous: int
    role: Role
    run: str


class LiveTest:
    """Live test of a replica; runs on its event loop."""

    def __init__(self, spec: EndpointSpec) -> None:
        self.enabled = spec.serve.decide
        self.rules = rules_of(spec.serve, task_type(spec.task, spec.label_kind).generates_text)
        self.signing = Path(spec.signing) if spec.signing else None
        self.replica = uuid.uuid4().hex[:12]
        """Id under which the counts of this replica are stored."""
        self.trial: Trial | None = None
        self.counts = LiveCounts()
        """Of this replica."""
        self.merged: LiveCounts | None = None
        """Of all replicas, as of the last look."""
        self._planned: Role | None = None

    def set_plan(self, plan: ReplicaPlan, active: Mapping[Role, V]) -> V | None:
        """Put the plan's canary, else its shadow, on trial, if it has a permission and is loaded; returns that version.

        The counts of the same trial go on.
        """
        before, self.trial, self._planned = self.trial, None, None
        if self.enabled:
            roles = [role for role in (Role.CANARY, Role.SHADOW) if plan.version(role) is not None]
            self._planned = roles[0] if roles else None
            self.trial = next(filter(None, (self._trial(plan, role, active) for role in roles)), None)
        if self.trial is None or before is None or self.trial.run != before.run:
            self.counts, self.merged = LiveCounts(), None
        return active[self.trial.role] if self.trial else None

    def _trial(self, plan: ReplicaPlan, role: Role, active: Mapping[Role, ServedVersion]) -> Trial | None:
        wanted, main, found = plan.version(role), active[Role.MAIN], active.get(role)
        if wanted is None or found is None or found.version != wanted.version:
            return None
        try:
            permission = verify_permission(wanted.name, wanted.version, wanted.tags, trusted_keys(self.signing))
        except Untrusted:
            return None
        if permission.previous != main.version:
            return None
        return Trial(wanted.name, wanted.version, main.version, role, permission.run)

    def is_on(self, model: ServedVersion) -> bool:
        """Return True if this version is on trial."""
        return self.trial is not None and (model.name, model.version) == (self.trial.name, self.trial.version)

    def skip(self) -> None:
        """Count a request that was not compared."""
        if self.trial is not None:
            self.counts.skipped += 1

    @contextmanager
    def serving(self, model: ServedVersion) -> Iterator[None]:
        """Count a request that is served by the champion or by a canary on trial, and its failure."""
        trial, counts = self.trial, self.counts
        if trial is None or trial.role != Role.CANARY or model.name != trial.name:
            yield
            return
        side = counts.challenger if model.version == trial.version else counts.champion
        failed = False
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) or not is_failure(error):
                raise  # neither a success nor a failure of the model
            failed = True
            side.add(failed)
            raise
        side.add(failed)

    async def compare(self, infer: Infer, texts: list[str], champion: LoadedModel, challenger: LoadedModel) -> Array:
        """Run both versions on a request that has had its response, and count what they show.

        Returns the challenger's decoded outputs; raises what it raises.
        """
        counts = self.counts

        async def run(model: LoadedModel) -> Array:
            return model.task.decode(await infer(model, texts))

        found = await run_both(run, champion, challenger)
        one, two = champion.version, challenger.version
        counts.add_trials(one in found.errors, two in found.errors)
        if not found.errors:
            agrees = champion.task.agrees(found.outputs[one], challenger.task, found.outputs[two])
            counts.add_pair(sum(agrees) / max(len(agrees), 1), found.seconds[one], found.seconds[two])
        if two in found.errors:
            raise found.errors[two]
        return found.outputs[two]

    @property
    def requests(self) -> int:
        """Requests that count, of all replicas as of the last look."""
        return (self.merged or self.counts).requests

    def status(self) -> tuple[Role | None, str]:
        """Return the role that live requests decide on, and how far they are; None without one."""
        if self.trial is None:
            return self._planned, NO_PERMISSION
        return self.trial.role, progress(self.merged or self.counts, self.rules)


def rules_of(serve: ServeParams, generates_text: bool = False) -> LiveRules:
    """Return the thresholds of an endpoint's settings."""
    if generates_text:
        return LiveRules(serve.decide_requests, 0.0, serve.decide_latency, serve.decide_errors, serve.decide_tokens)
    return LiveRules(serve.decide_requests, serve.decide_agreement, serve.decide_latency, serve.decide_errors)
