"""Shadow traffic: run requests through a second version when idle, compare predictions, discard its responses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raypath.components.core.arrays import Array
from raypath.components.inference.dynamic_batching import QueueFull
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.observability.request_context import detached_context

if TYPE_CHECKING:
    from raypath.components.serving.live.live_test import LiveTest
    from raypath.components.serving.model_versions import LoadedModel

_logger = logging.getLogger("ray.serve")
Infer = Callable[["LoadedModel", list[str]], Awaitable[Array]]
"""Returns the raw outputs of a version for texts, [N, outputs]."""


@dataclass
class ShadowComparison:
    """Agreement of a shadow's predictions with those that were returned."""

    version: int
    predictions: int = 0
    agreed: int = 0
    skipped: int = 0
    """Requests skipped because the replica was busy."""
    failed: int = 0
    """Requests on which the shadow failed."""

    def summary(self) -> str:
        """Return the comparison in one line."""
        total = self.predictions
        share = f"{self.agreed / total:.1%} of {total} predictions agree" if total else "none compared"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"version {self.version}: {share}, {self.skipped} skipped{failed}"


class ShadowTraffic:
    """Shadow traffic of one replica; runs on its event loop. A canary under a live test receives it too.

    live: The live test that the comparisons count for.
    """

    def __init__(self, metrics: Metrics, log: PredictionLog | None, live: LiveTest | None = None) -> None:
        self.metrics, self.log, self.live = metrics, log, live
        self.version: LoadedModel | None = None
        self.compared: ShadowComparison | None = None
        self._under_way: asyncio.Task[None] | None = None

    def set_version(self, version: LoadedModel | None) -> None:
        """Send traffic to this version from now on, None to none; a new version starts a new comparison."""
        self.version = version
        if version is None or self.compared is None or self.compared.version != version.version:
            self.compared = ShadowComparison(version.version) if version else None

    def send(
        self, infer: Infer, busy: bool, texts: list[str], model: LoadedModel, decoded: Array, logged_id: str | None
    ) -> None:
        """Run a request through the shadow, unless the replica is busy, and compare it with the output of `model`.

        logged_id: The request's id if its predictions are logged; the shadow's are then logged too.
        """
        if self.version is None or self.compared is None:
            return
        if busy or self._under_way is not None:
            self._skip(self.compared)
            return
        work = self._compare(self.version, self.compared, infer, texts, model, decoded, logged_id)
        self._under_way = asyncio.create_task(work, context=detached_context())

    async def _compare(
        self,
        shadow: LoadedModel,
        compared: ShadowComparison,
        infer: Infer,
        texts: list[str],
        model: LoadedModel,
        decoded: Array,
        logged_id: str | None,
    ) -> None:
        try:
            if self.live is not None and self.live.is_on(shadow):
                other = await self.live.compare(infer, texts, model, shadow)
            else:
                other = shadow.task.decode(await infer(shadow, texts))
            self._count(compared, model.task.agrees(decoded, shadow.task, other))
            if self.log is not None and logged_id is not None:
                self.log.add(shadow, other, texts, id=logged_id, role="shadow", sampled=True)
        except QueueFull:
            self._skip(compared)
        except Exception as error:  # noqa: BLE001 - no client waits for it; failures are counted
            compared.failed += 1
            self.metrics.count("raypath_shadow_failed", 1, str(compared.version))
            _logger.warning("shadow version %s failed: %s", compared.version, type(error).__name__)
        finally:
            self._under_way = None

    def _count(self, compared: ShadowComparison, agrees: Sequence[bool]) -> None:
        compared.predictions += len(agrees)
        compared.agreed += sum(agrees)
        self.metrics.count("raypath_shadow_compared", len(agrees), str(compared.version))
        self.metrics.count("raypath_shadow_agreed", sum(agrees), str(compared.version))

    def _skip(self, compared: ShadowComparison) -> None:
        compared.skipped += 1
        self.metrics.count("raypath_shadow_skipped", 1, str(compared.version))
        if self.live is not None:
            self.live.skip()
