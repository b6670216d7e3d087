"""Embeddings of a fine-tuned encoder: mean pooling of the last hidden states over all tokens, special ones included, in
float32 and normalized to length one, as sentence encoders such as MiniLM are trained.

In fp32 and bf16 the embedder shares the model's weights, so embeddings need no memory of their own (bf16: cosines are
accurate to about 0.001). For OpenVINO the plain weights are loaded on the first request for embeddings.
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
    """Task of an embedding engine. width: dimensions of an embedding."""

    def __init__(self, width: int) -> None:
        self.outputs = width

    def forward(self, body: Any, batch: dict[str, Any]) -> Any:
        """Return embeddings, float32 [B, width]."""
        import torch

        mask = batch["attention_mask"]
        states = body(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state.float()  # [B, L, H]
        weights = mask[..., None].float()
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=1)

    def record(self, outputs: Any, batch: dict[str, Any]) -> Any:
        """Return the outputs unchanged."""
        return outputs


class Embedders:
    """Cache of embedding engines, one per engine and with its lifetime."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Engine, Engine] = WeakKeyDictionary()
        self._one = asyncio.Lock()

    async def of(self, engine: Engine, folder: Path) -> Engine:
        """Return the embedding engine of an engine. Raises DataError for a model without an encoder."""
        async with self._one:
            if engine not in self._made:
                self._made[engine] = await asyncio.to_thread(embedder, engine, folder)
            return self._made[engine]


def embedder(engine: Engine, folder: Path) -> Engine:
    """Create an embedding engine from the encoder of a model; shares the weights of `engine` if they are plain.

    folder: The model's folder. Raises DataError for a model without an encoder, InsufficientMemory.
    """
    from raypath.components.core.errors import DataError

    plain = _plain(engine, folder) if engine.precision in CPU_ONLY else engine
    body = full_encoder(plain.model)
    if body is None:
        raise DataError("it has no encoder below a head", fix="request predictions")
    made: Any = copy.copy(plain)
    made.model, made.task = body, MeanPooling(int(body.config.hidden_size))
    return made  # type: ignore[no-any-return]


def full_encoder(model: Any) -> Any:
    """Copy the encoder of a model, sharing its weights and computing all tokens; None without an encoder and a head."""
    from raypath.components.models.encoders.fast_bert import restore_forward

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
    return Engine(folder, device=engine.device, precision="plain", weights=engine.weights)
