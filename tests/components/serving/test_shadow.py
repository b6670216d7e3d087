"""ShadowTraffic traffic: counted anew for each version, and skipped while anybody waits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.replica.loader import open_version
from raypath.components.serving.replica.shadow import ShadowPredictions
from tests.tiny_classifier import texts, tiny_classifier


def test_each_version_is_counted_anew_and_a_busy_replica_skips(tmp_path: Path) -> None:
    folder = Path(tiny_classifier(tmp_path / "m").uri)
    main, two, three = (open_version(folder, "m", number, threads=1) for number in (1, 2, 3))
    shadow, lines = ShadowPredictions(Metrics("m"), None), texts(4)

    async def record(model: Any, lines: list[str]) -> Any:
        return model.engine.record(model.tokenizer.encode(lines))

    async def scene() -> None:
        decoded = main.task.decode(await record(main, lines))
        shadow.set_version(two)
        for busy in (False, True):
            shadow.send(record, busy, lines, main, decoded, None)
            while shadow._under_way is not None:
                await asyncio.sleep(0)

    asyncio.run(scene())
    assert shadow.compared is not None
    assert (shadow.compared.predictions, shadow.compared.agreed, shadow.compared.skipped) == (4, 4, 1)
    shadow.set_version(two)
    assert shadow.compared.predictions == 4
    shadow.set_version(three)
    assert (shadow.compared.version, shadow.compared.predictions, shadow.compared.skipped) == (3, 0, 0)
