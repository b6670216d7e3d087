"""Embeddings from a fine-tuned encoder: the mean of its last hidden states over a text's tokens, special ones
included, in float32 and with length one. That is what sentence encoders such as MiniLM were trained to give.

A model that answers in fp32 or bf16 shares its weights: embeddings cost no memory of their own, and are as exact as
its answers (bf16: cosines are right to about 0.001). From int8 or ONNX Runtime they could not be had, or would carry
the rounding of every layer: there the plain weights are opened beside, when embeddings are first asked for.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from raypath.components.inference.backends.loader import CPU_ONLY

if TYPE_CHECKING:
    from pathlib import Path

    from raypath.components.inference.engine import Engine


class MeanPooling:
    """In the place of a task: what an Engine has to know of embeddings. width: numbers of one."""

    def __init__(self, width: int) -> None:
        self.outputs = width

    def forward(self, body: Any, batch: dict[str, Any]) -> Any:
        """Embeddings float32 [B, width]."""
        import torch

        mask = batch["attention_mask"]
        states = body(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state.float()  # [B, L, H]
        weights = mask[..., None].float()
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=1)

    def record(self, outputs: Any, batch: dict[str, Any]) -> Any:
        """As they are."""
        return outputs


class Embedders:
    """An embedder for each engine that is asked for one, as long as the engine lives."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Engine, Engine] = WeakKeyDictionary()
        self._one = asyncio.Lock()

    async def of(self, engine: Engine, folder: Path) -> Engine:
        """What turns token ids into embeddings by `record`. Raises DataError where the model has no encoder."""
        async with self._one:
            if engine not in self._made:
                self._made[engine] = await asyncio.to_thread(embedder, engine, folder)
            return self._made[engine]


def embedder(engine: Engine, folder: Path) -> Engine:
    """An engine of the encoder below the head, on the weights of `engine` where they are plain.

    folder: the model's. Raises DataError for a model without an encoder below a head, or without memory for it.
    """
    from raypath.components.core.errors import DataError

    plain = _plain(engine, folder) if engine.precision in CPU_ONLY else engine
    body = full_encoder(plain.model)
    if body is None:
        raise DataError("it has no encoder below a head", fix="ask for predictions")
    made: Any = copy.copy(plain)
    made.model, made.task = body, MeanPooling(int(body.config.hidden_size))
    return made  # type: ignore[no-any-return]


def full_encoder(model: Any) -> Any:
    """The encoder of a model, computing every token (see tasks/encoders.py); its weights are the model's own. None
    where the model is no encoder with a head."""
    from raypath.components.models.fast_bert import restore_forward

    base = model.base_model
    if base is model or not hasattr(base.config, "hidden_size"):
        return None
    shared = {id(part): part for part in (*base.parameters(), *base.buffers())}
    body = copy.deepcopy(base, shared)
    restore_forward(*body.modules())
    return body


def _plain(engine: Engine, folder: Path) -> Engine:
    from raypath.components.inference.engine import Engine
    from raypath.components.inference.memory import check_memory

    check_memory(sum(path.stat().st_size for path in folder.glob("*.safetensors")))
    return Engine(folder, device=engine.device, precision="plain")
