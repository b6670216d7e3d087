"""Prices of requests."""

from __future__ import annotations

from raypath.components.serving.metering.holder import Key


def price_of(key: Key, tokens: int, generated: int = 0, cached: int = 0) -> float:
    """Return the price of a request: generated and cached tokens have prices of their own where the key names them.

    tokens: of the request and its response, generated and cached ones included.
    """
    plain = key.price_per_1k_tokens
    of_generated = plain if key.price_per_1k_generated is None else key.price_per_1k_generated
    of_cached = plain if key.price_per_1k_cached is None else key.price_per_1k_cached
    total = (tokens - generated - cached) * plain + generated * of_generated + cached * of_cached
    return key.price_per_request + total / 1_000
