"""A replica without Ray: the HTTP side and the batching are the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from components.core.artifacts import Model
from components.serving.limits import Limits

LIMITS = Limits(items=50, characters=500, body=100_000, seconds=20.0, batch=8, patience=5.0)


def api_of(model: Model, limits: Limits = LIMITS) -> FastAPI:
    """The application of a replica that has this model in service as version 1 of m."""
    from components.data.tokens import Encoder
    from components.serving.api import Health, build_api
    from components.serving.app import Loaded, Service, Spec
    from components.serving.batching import Batcher
    from components.serving.engine import Engine
    from components.tasks.bases import read_card

    real: Any = Service.func_or_class  # type: ignore[attr-defined]
    folder = Path(model.uri)
    card, engine = read_card(folder), Engine(folder)

    class Replica:
        answer, _tokens, _decoded = real.answer, real._tokens, real.decoded
        spec = Spec(
            name="m", task=model.task, label_kind=model.label_kind, tracking="", url="", route="/", threads=1,
            limits=limits, options={},
        )  # fmt: skip
        loaded = Loaded(1, card, engine.task, Encoder(folder, card.max_length), engine)

        def health(self) -> Health:
            return Health(name="m", version=1, status="ok")

        async def decoded(self, lines: list[str], usage: Any = None) -> Any:
            # A test client has a loop a request.
            self.batcher = Batcher(limits.batch, limits.patience, 2)
            try:
                return await self._decoded(lines, usage)
            finally:
                self.batcher.close()

    return build_api(Replica())  # type: ignore[arg-type]
