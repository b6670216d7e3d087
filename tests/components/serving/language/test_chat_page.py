"""The page where a person chats with the model, in a headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from raypath.components.serving.metering.api_keys import KeyStore
from tests.components.serving.language.chat_server import language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
FOUND = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
if FOUND is None:
    pytest.skip("no Chromium here: apt-get install chromium, or name one in CHROMIUM", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="the dependency group test has playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that notes what it complains of, which hosts it asks, and the bodies that it sends."""
    page = browser.new_page()
    page.set_default_timeout(10_000)
    page.complaints, page.hosts, page.sent = [], set(), []
    page.on("console", lambda said: page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda asked: page.hosts.add(urlsplit(asked.url).netloc))
    page.on("request", lambda asked: page.sent.append(asked.post_data_json) if asked.post_data else None)
    yield page
    page.close()


def test_a_conversation_is_streamed_with_its_settings(page: Any, chat: SimpleNamespace) -> None:
    page.goto(chat.url)
    page.wait_for_selector("#version >> text=version 1")
    page.click("summary")
    for field, value in {"system": "Be brief.", "temperature": "0", "max_tokens": "6", "seed": "3"}.items():
        page.fill(f"#{field}", value)
    page.fill("#text", "<b>hi</b>")
    page.keyboard.press("Enter")
    meta = page.wait_for_selector(".assistant .meta >> text=/version 1 · 6 tokens/").inner_text()
    assert "cut at the limit" in meta
    assert page.inner_text(".user p") == "<b>hi</b>", "texts are texts"
    page.fill("#text", "more")
    page.click("#send")
    page.wait_for_selector(".assistant:nth-of-type(4) .meta >> text=version 1")
    [first, second] = page.sent
    assert first["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<b>hi</b>"}]
    assert {name: first[name] for name in ("model", "temperature", "max_tokens", "seed")} == {
        "model": "m", "temperature": 0, "max_tokens": 6, "seed": 3
    }  # fmt: skip
    assert [each["role"] for each in second["messages"]] == ["system", "user", "assistant", "user"]
    page.click("#fresh")
    assert page.locator(".turn").count() == 0
    assert (page.complaints, page.hosts) == ([], {urlsplit(chat.url).netloc})


def test_a_response_is_stopped(page: Any, chat: SimpleNamespace) -> None:
    page.goto(chat.url)
    page.click("summary")
    page.select_option("#model", "n")
    page.fill("#max_tokens", "200")
    page.click("summary")
    page.fill("#text", "hi")
    page.click("#send")
    page.wait_for_function("document.querySelector('.assistant p')?.textContent.length > 2")
    page.click("#stop")
    page.wait_for_selector(".assistant .meta >> text=stopped")
    assert page.is_visible("#send")
    assert page.sent[0]["model"] == "n"
    assert page.complaints == []


def test_a_service_with_keys_asks_for_one(page: Any, chat_folder: Path, tmp_path: Path) -> None:
    _, key = KeyStore(tmp_path).create("anna", ["chat"])
    with served_chat(language_service({"m": chat_folder}, access=str(tmp_path))) as url:
        page.goto(url)
        page.fill("#text", "hi")
        page.keyboard.press("Enter")
        page.wait_for_selector("#message >> text=This service asks for an API key.")
        assert page.input_value("#text") == "hi", "the message is not lost"
        page.fill("#key", key)
        page.click("#send")
        page.wait_for_selector(".assistant .meta >> text=version 1")
        page.reload()
        assert page.input_value("#key") == key, "kept in this tab"
