"""One replica of tiny language models for the tests of this folder, on loopback and without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.components.serving.language.chat_server import chat_model, language_service, served_chat


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model's folder."""
    return chat_model(tmp_path_factory.mktemp("chat-model"))


@pytest.fixture(scope="module")
def chat(chat_folder: Path) -> Iterator[SimpleNamespace]:
    """A service of the models m and n, without keys."""
    service = language_service({"m": chat_folder, "n": chat_folder})
    with served_chat(service) as url:
        yield SimpleNamespace(service=service, url=url)


@pytest.fixture
def http(chat: SimpleNamespace) -> Iterator[httpx.Client]:
    """A client of that service."""
    with httpx.Client(base_url=chat.url, timeout=20.0, trust_env=False) as client:
        yield client
