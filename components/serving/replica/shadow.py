"""The shadow: a version that is asked too when nobody waits for the model, compared, and never heard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raypath.components.core.arrays import Array
from raypath.components.inference.dynamic_batching import QueueFull
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.observability.request_context import detached_context

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel

log = logging.getLogger("ray.serve")
Ask = Callable[["LoadedModel", list[str]], Awaitable[Array]]
"""What a version records of texts, [N, outputs]."""


@dataclass
class ShadowComparison:
    """How a shadow's answers compare with those that were returned."""

    version: int
    answers: int = 0
    agreed: int = 0
    skipped: int = 0
    """Requests for which there was no time."""
    failed: int = 0
    """Requests that the shadow could not answer."""

    def told(self) -> str:
        """In words."""
        share = f"{self.agreed / self.answers:.1%} of {self.answers} answers agree" if self.answers else "none compared"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"version {self.version}: {share}, {self.skipped} skipped{failed}"


class Shadow:
    """Asks the shadow of one replica; on its event loop."""

    def __init__(self, metrics: Metrics, kept: PredictionLog | None) -> None:
        self.metrics, self.kept = metrics, kept
        self.version: LoadedModel | None = None
        self.compared: ShadowComparison | None = None
        self._under_way: asyncio.Task[None] | None = None

    def take(self, version: LoadedModel | None) -> None:
        """Ask this one from now on, None for none; another version is counted anew."""
        self.version = version
        if version is None or self.compared is None or self.compared.version != version.version:
            self.compared = ShadowComparison(version.version) if version else None

    def ask(
        self, ask: Ask, busy: bool, texts: list[str], model: LoadedModel, decoded: Array, noted: str | None
    ) -> None:
        """Compare with what `model` answered, unless the replica is busy. noted: id of a request that is logged."""
        if self.version is None or self.compared is None:
            return
        if busy or self._under_way is not None:
            self._skip(self.compared)
            return
        work = self._compare(self.version, self.compared, ask, texts, model, decoded, noted)
        self._under_way = asyncio.create_task(work, context=detached_context())

    async def _compare(
        self,
        shadow: LoadedModel,
        compared: ShadowComparison,
        ask: Ask,
        texts: list[str],
        model: LoadedModel,
        decoded: Array,
        noted: str | None,
    ) -> None:
        try:
            other = shadow.task.decode(await ask(shadow, texts))
            self._count(compared, _predicted(model, decoded), _predicted(shadow, other))
            if self.kept is not None and noted is not None:
                self.kept.note(shadow, other, texts, id=noted, role="shadow", drawn=True)
        except QueueFull:
            self._skip(compared)
        except Exception as error:  # noqa: BLE001 - nobody waits for it; it is counted instead
            compared.failed += 1
            self.metrics.count("raypath_shadow_failed", 1, str(compared.version))
            log.warning("shadow version %s did not answer: %s", compared.version, type(error).__name__)
        finally:
            self._under_way = None

    def _count(self, compared: ShadowComparison, ours: list[Any], theirs: list[Any]) -> None:
        agreed = sum(a == b for a, b in zip(ours, theirs, strict=True))
        compared.answers += len(ours)
        compared.agreed += agreed
        self.metrics.count("raypath_shadow_compared", len(ours), str(compared.version))
        self.metrics.count("raypath_shadow_agreed", agreed, str(compared.version))

    def _skip(self, compared: ShadowComparison) -> None:
        compared.skipped += 1
        self.metrics.count("raypath_shadow_skipped", 1, str(compared.version))


def _predicted(model: LoadedModel, decoded: Array) -> list[tuple[Any, ...]]:
    """What is predicted of each text, without its scores."""
    columns = model.task.columns(decoded)
    return list(zip(*(columns[name].to_pylist() for name in columns if name.startswith("predicted")), strict=True))
