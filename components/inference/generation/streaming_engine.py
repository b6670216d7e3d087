"""Protocol of engines that generate for many requests at a time: rows join and leave between steps.

All methods are called from one thread; `AsyncEngine` is the interface for asyncio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from raypath.components.inference.generation.engine import Finish, SamplingSettings

TopTokens = list[tuple[int, float]]
"""Ids and log-probabilities of the most probable tokens at one position, in falling order."""


@dataclass
class Piece:
    """Part of a response: what a step, or several, added."""

    request_id: str
    ids: list[int] = field(default_factory=list)
    """New token ids, without the stop token."""
    logprobs: list[float] = field(default_factory=list)
    """Of each id, as in `Generated`; empty where the settings ask for none."""
    top: list[TopTokens] = field(default_factory=list)
    """Of each id, with `top_logprobs`; else empty."""
    finish: Finish | None = None
    """Set in the last piece."""
    error: Exception | None = None
    """Set, and nothing else, for a request that failed alone; it has ended."""
    cached: int = 0
    """Tokens of the prompt whose keys and values came from the prefix cache."""

    def extend(self, later: Piece) -> None:
        """Append the piece that follows this one."""
        self.ids += later.ids
        self.logprobs += later.logprobs
        self.top += later.top
        self.finish, self.cached = later.finish, max(self.cached, later.cached)


@dataclass(frozen=True)
class EngineStatistics:
    """Load of an engine, and counts since it was loaded."""

    waiting: int = 0
    """Requests without a slot."""
    running: int = 0
    """Requests that are being answered."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Tokens of prompts that came from the prefix cache."""
    generated_tokens: int = 0
    cache_use: float = 0.0
    """Share of the memory for keys and values that is in use, 0 to 1."""
    cache_tokens: int = 0
    """Tokens whose keys and values fit in that memory."""


@runtime_checkable
class StreamingEngine(Protocol):
    """Engine that has loaded a model, for requests that come and go."""

    @property
    def name(self) -> str:
        """Name of the engine, such as transformers."""
        ...

    @property
    def precision(self) -> str:
        """Precision of the matmuls, such as bf16."""
        ...

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its response."""
        ...

    def add(self, request_id: str, prompt: Sequence[int], settings: SamplingSettings) -> None:
        """Queue a request. request_id: unique among those in flight. Raises DataError for a prompt that the model
        cannot take, or a setting that the engine does not have."""
        ...

    def has_work(self) -> bool:
        """Return True while `step` has something to do."""
        ...

    def step(self) -> list[Piece]:
        """Run the model once for the requests in flight, and return the new tokens of each."""
        ...

    def abort(self, request_id: str) -> None:
        """Drop a request; its slot is free at the next step. A request that has ended is none."""
        ...

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter beside the others, for `SamplingSettings.adapter`. Raises DataError where the engine or
        the adapter's layers do not allow it."""
        ...

    def drop_adapter(self, name: str) -> None:
        """Unload an adapter; requests that use it end before."""
        ...

    def statistics(self) -> EngineStatistics:
        """Return load and counts. Also called from other threads."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...
