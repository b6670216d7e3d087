"""Usage of one request, with what is reserved for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from raypath.components.serving.metering.holder import Key
from raypath.components.serving.metering.ledger import KeyState


class RateLimiter(Protocol):
    """Rate limits of keys (middleware/rate_limit.py)."""

    def acquire(self, key: Key, state: KeyState, now: float) -> None:
        """Take one request. Raises AccessError 429."""
        ...

    def take_tokens(self, key: Key, state: KeyState, tokens: int, now: float) -> None:
        """Take the most tokens that a request may have. Raises AccessError 429."""
        ...

    def return_tokens(self, key: Key, state: KeyState, tokens: int) -> None:
        """Return tokens that were taken and not used; a negative number takes them."""
        ...


@dataclass(slots=True)
class Usage:
    """Usage of one request; the application fills it in."""

    tokens: int = 0
    """Of the request and its response."""
    compute_seconds: float = 0.0
    """Core seconds of tokenization, and of the request's share of each batch."""
    model: str = ""
    """Empty: the meter's default model."""
    reserved: int = 0
    """Tokens that are reserved for the request."""
    extend: Callable[[Usage, int], None] | None = None
    """Reserves more tokens, for a key with a limit of tokens (`UsageMeter.extend`)."""
    generated_tokens: int = 0
    """Of `tokens`, those that a language model generated."""
    cached_tokens: int = 0
    """Of `tokens`, those of a prompt whose keys and values came from the prefix cache."""
    taken: int = 0
    """Tokens that were taken from the key's rate."""
    rated: bool = False
    """True for a key with a rate of tokens."""

    def count(self, tokens: int) -> None:
        """Set the tokens, before they are processed. Raises AccessError 429 if the limits do not have them."""
        self.reserve(tokens)
        self.tokens = tokens

    def reserve(self, tokens: int) -> None:
        """Reserve the most tokens that the request may have. Raises AccessError 429 if the limits do not have them."""
        if self.extend is not None and (tokens > self.reserved or (self.rated and tokens > self.taken)):
            self.extend(self, tokens)
