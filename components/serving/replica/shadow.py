"""Shadow traffic: run requests through a second version when idle, compare predictions, discard its responses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from raypath.components.core.arrays import Array
from raypath.components.inference.dynamic_batching import QueueFull
from raypath.components.serving.live.counts import LiveCounts
from raypath.components.serving.model_versions import ServedVersion
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.observability.request_context import current_request, detached_context

if TYPE_CHECKING:
    from raypath.components.serving.live.live_test import LiveTest
    from raypath.components.serving.model_versions import LoadedModel

V = TypeVar("V", bound=ServedVersion)
_logger = logging.getLogger("ray.serve")
Infer = Callable[["LoadedModel", list[str]], Awaitable[Array]]
"""Returns the raw outputs of a version for texts, [N, outputs]."""


@dataclass
class ShadowComparison:
    """Agreement of a shadow's predictions with those that were returned."""

    version: int
    predictions: int = 0
    agreed: float = 0
    skipped: int = 0
    """Requests skipped because the replica was busy."""
    failed: int = 0
    """Requests on which the shadow failed."""
    responses: LiveCounts | None = None
    """Of a language model: requests to which both versions have responded."""

    def summary(self) -> str:
        """Return the comparison in one line."""
        total = self.predictions
        unit = "predictions" if self.responses is None else "next tokens"
        share = f"{self.agreed / total:.1%} of {total} {unit} agree" if total else "none compared"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"version {self.version}: {share}{self._ratios()}, {self.skipped} skipped{failed}"

    def _ratios(self) -> str:
        if self.responses is None or not self.responses.requests:
            return ""
        latency, length = (each.ratio for each in (self.responses.latency, self.responses.tokens))
        many = f"{self.responses.requests} response{'' if self.responses.requests == 1 else 's'}"
        return f" in {many}, {length:.2f} times as long, {latency:.2f} times the time a token"


class ShadowTraffic(Generic[V]):
    """Shadow traffic of one replica; runs on its event loop. A canary under a live test receives it too.

    live: The live test that the comparisons count for.
    """

    def __init__(self, metrics: Metrics, live: LiveTest | None = None) -> None:
        self.metrics, self.live = metrics, live
        self.version: V | None = None
        self.compared: ShadowComparison | None = None
        self._under_way: asyncio.Task[None] | None = None

    def set_version(self, version: V | None) -> None:
        """Send traffic to this version from now on, None to none; a new version starts a new comparison."""
        self.version = version
        if version is None or self.compared is None or self.compared.version != version.version:
            self.compared = ShadowComparison(version.version) if version else None

    def start(self, busy: bool, compare: Callable[[V], Awaitable[Sequence[float]]]) -> None:
        """Compare a request that has its response in the background, unless the replica is busy.

        compare: Returns the agreement of each prediction with the response, 0 to 1.
        """
        if self.version is None or self.compared is None:
            return
        if busy or self._under_way is not None:
            self._skip(self.compared)
            return
        work = self._compare(self.version, self.compared, compare)
        self._under_way = asyncio.create_task(work, context=detached_context())

    async def _compare(
        self, shadow: V, compared: ShadowComparison, compare: Callable[[V], Awaitable[Sequence[float]]]
    ) -> None:
        try:
            self._count(compared, await compare(shadow))
        except QueueFull:
            self._skip(compared)
        except Exception as error:  # noqa: BLE001 - no client waits for it; failures are counted
            compared.failed += 1
            self.metrics.count("raypath_shadow_failed", 1, str(compared.version))
            _logger.warning("shadow version %s failed: %s", compared.version, type(error).__name__)
        finally:
            self._under_way = None

    def _count(self, compared: ShadowComparison, agrees: Sequence[float]) -> None:
        compared.predictions += len(agrees)
        compared.agreed += sum(agrees)
        self.metrics.count("raypath_shadow_compared", len(agrees), str(compared.version))
        self.metrics.count("raypath_shadow_agreed", sum(agrees), str(compared.version))

    def _skip(self, compared: ShadowComparison) -> None:
        compared.skipped += 1
        self.metrics.count("raypath_shadow_skipped", 1, str(compared.version))
        if self.live is not None:
            self.live.skip()


class ShadowPredictions(ShadowTraffic["LoadedModel"]):
    """Shadow traffic of models that predict. log: also logs the shadow's predictions."""

    def __init__(self, metrics: Metrics, log: PredictionLog | None, live: LiveTest | None = None) -> None:
        super().__init__(metrics, live)
        self.log = log

    def send(
        self, infer: Infer, busy: bool, texts: list[str], model: LoadedModel, decoded: Array, logged_id: str | None
    ) -> None:
        """Run a request through the shadow, unless the replica is busy, and compare it with the output of `model`.

        logged_id: The request's id if its predictions are logged; the shadow's are then logged too.
        """
        subject = current_request().subject

        async def compare(shadow: LoadedModel) -> Sequence[bool]:
            if self.live is not None and self.live.is_on(shadow):
                other = await self.live.compare(infer, texts, model, shadow)
            else:
                other = shadow.task.decode(await infer(shadow, texts))
            agrees = model.task.agrees(decoded, shadow.task, other)
            if self.log is not None and logged_id is not None:
                self.log.add(shadow, other, texts, id=logged_id, role="shadow", sampled=True, subject=subject)
            return agrees

        self.start(busy, compare)
