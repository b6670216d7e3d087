"""One replica of tiny language models for the tests of this folder, on loopback and without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from raypath.components.inference.generation.selection import opening
from tests.components.models.chat_template.styles import QWEN
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


@pytest.fixture(scope="session")
def grammar_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a service of the model m in openvino-genai, with a template that has a place for tools."""
    folder = chat_model(tmp_path_factory.mktemp("grammar"), max_position_embeddings=1024)
    (folder / "chat_template.jinja").write_text(QWEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "PARAMETERS", 0)
        service = language_service({"m": folder})
    assert service.models.main.engine.engine.name == "openvino-genai"
    with served_chat(service) as url:
        yield url
