"""A registry in memory with signed versions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from raypath.components.registry import aliases, client
from raypath.components.registry.signing import keys, records
from raypath.components.tracking.tags import (
    SIGNATURE,
)
from tests.components.registry.memory_registry import URI, MemoryRegistry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    """Three signed versions of `shop`, of which none has an alias."""
    made = MemoryRegistry(shop=3, other=1)
    key = keys.signing_key(None)
    for number in (1, 2, 3):
        made.tags("shop", number)[SIGNATURE] = records.sign_version(key, "shop", number, "digest", {})

    @contextlib.contextmanager
    def open_client(uri: str) -> Iterator[MemoryRegistry]:
        assert uri == URI
        yield made

    for module in (aliases, client):
        monkeypatch.setattr(module, "mlflow_client", open_client)
    return made
