"""A streaming engine for asyncio: one thread steps, and each stream takes its pieces at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from raypath.components.core.errors import DataError, Unavailable
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.streaming_engine import EngineStatistics, Piece, StreamingEngine

_log = logging.getLogger(__name__)


class EngineFault(Unavailable):
    """The engine failed, and every stream with it; it has to be loaded again."""


class TokenStream(AsyncIterator[Piece]):
    """Pieces of one response. What is not read is joined to one piece, so that a slow reader holds back nobody, and
    takes at most the memory of its response.

    A stream that is cancelled, closed or dropped aborts its request.
    """

    def __init__(
        self,
        request_id: str,
        loop: asyncio.AbstractEventLoop,
        abort: Callable[[str], None],
        observe: Callable[[Piece], None] | None = None,
    ) -> None:
        self.request_id, self.loop = request_id, loop
        self._abort, self._observe = abort, observe
        self._pending: Piece | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, piece: Piece) -> None:
        """Add a piece. Called in the loop of the stream."""
        if self._observe is not None:
            self._observe(piece)
        if self._pending is None:
            self._pending = piece
        else:
            self._pending.extend(piece)
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, after what is pending. Called in the loop of the stream."""
        self._error = self._error or error
        self._changed.set()

    async def __anext__(self) -> Piece:
        """Return what came since the last piece. Raises DataError for a request that the engine does not take,
        EngineFault where the engine failed."""
        if self._ended:
            raise StopAsyncIteration
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        self._changed.clear()
        piece, self._pending = self._pending, None
        if piece is None:
            self._ended = True
            assert self._error is not None
            raise self._error
        if self._error is not None:
            self._changed.set()
        self._ended = piece.finish is not None
        return piece

    def expire(self) -> None:
        """Abort the request, and end the stream with TimeoutError. Called in the loop of the stream, such as by
        `call_later`, which takes less time than a timer for each piece."""
        if not self._ended:
            self._abort(self.request_id)
            self.fail(TimeoutError())

    async def aclose(self) -> None:
        """Abort the request, unless it has ended."""
        if not self._ended:
            self._ended = True
            self._abort(self.request_id)

    def __del__(self) -> None:
        if not self._ended:
            self._abort(self.request_id)


class _Reader(NamedTuple):
    """Receiver of the pieces of a request. stream: a weak reference: a stream that is dropped aborts its request."""

    loop: asyncio.AbstractEventLoop
    stream: weakref.ref[TokenStream]


class AsyncEngine:
    """A streaming engine whose steps run in a thread of their own."""

    def __init__(self, engine: StreamingEngine) -> None:
        self.engine = engine
        self.fault: EngineFault | None = None
        """Set when a step failed."""
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._readers: dict[str, _Reader] = {}
        self._numbers = itertools.count()
        self._step_start = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    def stream(
        self,
        prompt: Sequence[int],
        settings: SamplingSettings,
        request_id: str = "",
        observe: Callable[[Piece], None] | None = None,
    ) -> TokenStream:
        """Start a request, and return its pieces. Called in an event loop.

        Args:
            request_id: Unique among those in flight; "" makes one.
            observe: Called in this loop with each piece as it comes, whether or not it is read.

        Raises EngineFault where the engine failed before.
        """
        self.check_health()
        loop = asyncio.get_running_loop()
        stream = TokenStream(request_id or f"r{next(self._numbers)}", loop, self._abort, observe)
        entry = stream.request_id, _Reader(stream.loop, weakref.ref(stream))
        self._commands.put(lambda: self._add(*entry, prompt, settings))
        return stream

    def check_health(self, stalled: float = 60.0) -> None:
        """Raise EngineFault if a step failed, or one takes longer than `stalled` seconds: its streams fail, too."""
        if self.fault is not None:
            raise self.fault
        if self._closed:
            raise EngineFault("the engine is closed")
        start = self._step_start
        if start and time.monotonic() - start > stalled:
            what = f"the engine {self.engine.name} has not finished a step in {stalled:.0f} seconds"
            self.fault = EngineFault(what, fix="the version is loaded again")
            self._fail_all(self.fault)
            raise self.fault

    def statistics(self) -> EngineStatistics:
        """Return load and counts."""
        return self.engine.statistics()

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter between two steps. Raises DataError."""
        await asyncio.wrap_future(self.submit(lambda: self.engine.load_adapter(name, folder)))

    async def drop_adapter(self, name: str) -> None:
        """Unload an adapter between two steps. Raises DataError."""
        await asyncio.wrap_future(self.submit(lambda: self.engine.drop_adapter(name)))

    async def close(self) -> None:
        """Fail the streams in flight, end the thread and release the model."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Do the same from any other thread than the engine's, without an event loop."""
        self._closed = True
        self._commands.put(None)
        self._thread.join()
        self._fail_all(EngineFault("the engine is closed"))
        self.engine.close()

    def submit(self, function: Callable[[], None]) -> Future[None]:
        """Run a function in the engine's thread, between two steps. Called from any thread. Raises EngineFault."""
        self.check_health()
        done: Future[None] = Future()

        def run() -> None:
            try:
                function()
            except Exception as error:  # noqa: BLE001 - it is raised where it was called
                done.set_exception(error)
            else:
                done.set_result(None)

        self._commands.put(run)
        return done

    def _abort(self, request_id: str) -> None:
        self._commands.put(lambda: self._drop(request_id))

    def _run(self) -> None:
        """Run commands, and steps while there is work, until the engine is closed."""
        while True:
            busy = self.fault is None and self.engine.has_work()
            try:
                command = self._commands.get(block=not busy)
            except Empty:
                self._step()
                continue
            if command is None:
                return
            command()

    def _step(self) -> None:
        self._step_start = time.monotonic()
        try:
            pieces = self.engine.step()
        except Exception as error:  # noqa: BLE001 - whatever it is, no stream may wait for ever
            _log.exception("the generation engine failed")
            what = f"the engine {self.engine.name} failed ({type(error).__name__}: {error})"
            self.fault = EngineFault(what, fix="the version is loaded again")
            self._fail_all(self.fault)
            return
        finally:
            self._step_start = 0.0
        self._deliver(pieces)

    def _deliver(self, pieces: Iterable[Piece]) -> None:
        """Hand pieces to their streams, with one call for each event loop."""
        calls: dict[asyncio.AbstractEventLoop, list[tuple[TokenStream, Piece]]] = {}
        for piece in pieces:
            reader = self._readers.get(piece.request_id)
            if reader is None:
                continue
            if piece.finish is not None or piece.error is not None:
                del self._readers[piece.request_id]
            if (stream := reader.stream()) is not None:
                calls.setdefault(reader.loop, []).append((stream, piece))
        for loop, given in calls.items():
            try:
                loop.call_soon_threadsafe(_put_all, given)
            except RuntimeError:  # the loop is closed
                for stream, _ in given:
                    self._drop(stream.request_id)

    def _add(self, request_id: str, reader: _Reader, prompt: Sequence[int], settings: SamplingSettings) -> None:
        if reader.stream() is None:
            return
        if self.fault is not None:
            _fail(reader, self.fault)
            return
        if request_id in self._readers:
            _fail(reader, DataError(f"request {request_id} is in flight already"))
            return
        try:
            self.engine.add(request_id, prompt, settings)
        except Exception as error:  # noqa: BLE001 - it is raised where the stream is read
            _fail(reader, error)
        else:
            self._readers[request_id] = reader

    def _drop(self, request_id: str) -> None:
        if self._readers.pop(request_id, None) is not None and self.fault is None:
            self.engine.abort(request_id)

    def _fail_all(self, error: EngineFault) -> None:
        for reader in list(self._readers.values()):
            _fail(reader, error)
        self._readers.clear()


def _put_all(given: Iterable[tuple[TokenStream, Piece]]) -> None:
    for stream, piece in given:
        if piece.error is not None:
            stream.fail(piece.error)
        else:
            stream.put(piece)


def _fail(reader: _Reader, error: BaseException) -> None:
    stream = reader.stream()
    if stream is not None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            reader.loop.call_soon_threadsafe(stream.fail, error)
