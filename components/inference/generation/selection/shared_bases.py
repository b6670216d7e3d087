"""Models that are adapters on one base: each has an engine of its own in sight, and all are answered by one.

`SharedBases` opens a base once, in vLLM or transformers, and loads an adapter into it for each model.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.async_engine import AsyncEngine, EngineFault, TokenStream
from raypath.components.inference.generation.engine import Finish, Generated, Progress, SamplingSettings
from raypath.components.inference.generation.streaming_engine import EngineStatistics, Piece, StreamingEngine
from raypath.components.inference.generation.vllm.options import VllmOptions
from raypath.components.inference.memory import check_memory

_log = logging.getLogger(__name__)


@dataclass
class _Base:
    """A base that is open. users: adapters that are loaded into it."""

    digest: str
    engine: AsyncEngine
    users: int = 0


class AdapterEngine:
    """One model of a shared engine, with the interface of `AsyncEngine` and of a `GenerationEngine`.

    adapter: its name in the engine; "" for the base itself.
    """

    def __init__(self, bases: SharedBases, base: _Base, adapter: str) -> None:
        self.shared, self.adapter = base.engine, adapter
        self._bases, self._base = bases, base
        self._open = True

    @property
    def engine(self) -> StreamingEngine:
        """The engine that all models on the base share."""
        return self.shared.engine

    @property
    def precision(self) -> str:
        """Precision of the matmuls."""
        return self.engine.precision

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its response."""
        return self.engine.context

    def stream(self, prompt: Sequence[int], settings: SamplingSettings, *given: Any, **named: Any) -> TokenStream:
        """Start a request to this model; see `AsyncEngine`."""
        return self.shared.stream(prompt, replace(settings, adapter=self.adapter), *given, **named)

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[Generated]:
        """Return an answer to each prompt, in the same order, beside the requests in flight.

        Called in a thread without an event loop. Raises what streams raise.
        """
        return asyncio.run(self._generate(prompts, settings))

    async def _generate(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> list[Generated]:
        streams = [self.stream(prompt, settings) for prompt in prompts]
        try:
            return [await self._whole(stream) for stream in streams]
        finally:
            for stream in streams:
                await stream.aclose()

    async def _whole(self, stream: TokenStream) -> Generated:
        found = Piece(stream.request_id)
        async for piece in stream:
            found.extend(piece)
        return Generated(found.ids, self._decode(found.ids), found.finish or Finish.LENGTH, found.logprobs)

    def _decode(self, ids: Sequence[int]) -> str:
        tokenizer: Any = getattr(self.engine, "tokenizer")  # noqa: B009 - engines with adapters have one
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    def check_health(self, stalled: float = 60.0) -> None:
        """Raise EngineFault if the shared engine failed or is stuck."""
        self.shared.check_health(stalled)

    def statistics(self) -> EngineStatistics:
        """Return load and counts of the shared engine."""
        return self.shared.statistics()

    async def close(self) -> None:
        """Unload the adapter, and the base with its last one."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Do the same from any thread without an event loop."""
        if self._open:
            self._open = False
            self._bases.release(self._base, self.adapter)


class SharedBases:
    """Open bases by their digest. Used from any thread."""

    def __init__(self, vllm: VllmOptions | None = None) -> None:
        """Args: vllm: for vLLM, which opens bases on a GPU where it is installed."""
        self._vllm = vllm or VllmOptions()
        self._bases: dict[str, _Base] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def digests(self) -> list[str]:
        """Digests of the bases that are open."""
        return list(self._bases)

    def open(self, folder: Path, name: str) -> AdapterEngine | None:
        """Return an engine for the model of a folder; None for one that has to be merged, or is no adapter.

        name: of the model. Raises DataError for another base, InsufficientMemory, EngineFault.
        """
        from raypath.components.inference.generation.batching.adapter_file import why_merged
        from raypath.components.models.adapters import adapter_base, is_adapter, names_base
        from raypath.components.models.metadata import read_metadata

        if not names_base(folder):
            return None
        separate = is_adapter(folder)
        if separate and (why := why_merged(folder)):
            _log.warning("%s is served merged with its base: %s", name, why)
            return None
        with self._lock:
            base = self._opened(adapter_base(folder) if separate else folder, read_metadata(folder).base_digest)
            adapter = f"{name}-{next(self._numbers)}" if separate else ""
            base.users += 1
        try:
            if separate:
                base.engine.submit(lambda: base.engine.engine.load_adapter(adapter, folder)).result()
        except DataError as error:
            self.release(base, "")
            _log.warning("%s is served merged with its base: %s", name, error.what)
            return None
        except BaseException:
            self.release(base, "")
            raise
        return AdapterEngine(self, base, adapter)

    def release(self, base: _Base, adapter: str) -> None:
        """Unload an adapter, "" for none, and close its base where no other model uses it."""
        with contextlib.suppress(EngineFault):  # its adapters are lost with it
            if adapter:
                base.engine.submit(lambda: base.engine.engine.drop_adapter(adapter)).result()
        with self._lock:
            base.users -= 1
            if base.users:
                return
            self._bases.pop(base.digest, None)
        base.engine.stop()

    def _opened(self, folder: Path, digest: str) -> _Base:
        from raypath.components.inference.generation.selection.opening import open_adaptable

        if digest not in self._bases:
            check_memory(sum(path.stat().st_size for path in folder.iterdir()))
            self._bases[digest] = _Base(digest, AsyncEngine(open_adaptable(folder, self._vllm)))
        return self._bases[digest]
