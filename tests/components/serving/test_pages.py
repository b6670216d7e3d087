"""The pages where a person tries the model and reads of its interface, in a headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from raypath.components.core.columns import Column
from raypath.components.serving.metering.api_keys import KeyStore
from tests.components.serving.server import served, service_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
FOUND = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
if FOUND is None:
    pytest.skip("no Chromium here: apt-get install chromium, or name one in CHROMIUM", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="the dependency group test has playwright")
LABELS = ("late", "broken", "lovely", "<img src=x onerror=alert(1)>", *(f"kind {n}" for n in range(6)))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("models")
    models = {
        "m": tiny_classifier(place / "m", labels=LABELS),
        "sizes": tiny_classifier(place / "n", labels=("height", "weight"), kind="number"),
    }
    (place / "m" / "metrics.json").write_text('{"macro_f1": 0.75, "macro_f1_low": 0.7, "macro_f1_high": 0.8}')
    with served(service_of(models)) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that notes what it complains of, and which hosts it asks."""
    page = browser.new_page()
    page.set_default_timeout(10_000)
    page.complaints, page.hosts = [], set()
    page.on("console", lambda said: page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda asked: page.hosts.add(urlsplit(asked.url).netloc))
    yield page
    page.close()


def test_a_text_is_typed_and_answered_in_bars(page: Any, url: str) -> None:
    page.goto(url)
    assert page.inner_text("h1") == "m"
    page.wait_for_selector("#version >> text=version 1")
    page.fill("#text", "lovely tea")
    page.click("#ask")
    page.wait_for_selector(".row.first")
    names, shares = page.locator(".row span:first-child").all_inner_texts(), page.locator(".row span:last-child")
    assert len(names) == 8
    given = [float(share.rstrip("%")) for share in shares.all_inner_texts()]
    assert given == sorted(given, reverse=True)
    assert page.locator(".row.first progress").evaluate("bar => bar.value") == pytest.approx(given[0] / 100, abs=1e-3)
    shown = page.inner_text("#message")
    assert shown.startswith("m version 1 · ")
    assert 0 < int(shown.removesuffix(" ms").rpartition(" ")[2]) < 5_000
    page.click("text=Show all 10")
    assert set(page.locator(".row span:first-child").all_inner_texts()) == set(LABELS)
    assert page.complaints == []
    assert page.hosts == {urlsplit(url).netloc}


def test_the_card_and_another_model(page: Any, url: str) -> None:
    page.goto(url)
    page.click("summary")
    page.wait_for_selector("text=macro f1, test split")
    assert "0.7500 (0.7000 to 0.8000)" in page.inner_text("#facts")
    page.select_option("#model", "sizes")
    page.wait_for_selector("#facts >> text=regression")
    page.fill("#text", "tea")
    page.press("#text", "Control+Enter")
    page.wait_for_selector(".row.first")
    assert page.locator(".row span:first-child").all_inner_texts() == ["height", "weight"]
    assert page.inner_text("#message").startswith("sizes version 1")
    assert page.complaints == []


def test_a_rejected_text_is_reported_and_a_narrow_page_does_not_overflow(page: Any, url: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(url)
    page.fill("#text", "tea " * 200)
    page.click("#ask")
    page.wait_for_selector("#message.wrong")
    assert page.inner_text("#message") == "text 0 has 800 characters; wanted at most 500 (serve.max_characters)"
    page.fill("#text", "tea" * 100)
    page.click("#ask")
    page.wait_for_selector(".row.first")
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_a_key_is_asked_for_where_one_is_needed(browser: Any, tmp_path: Path) -> None:
    _, key = KeyStore(tmp_path).create("anna", ["predict"])
    with served(service_of({"m": tiny_classifier(tmp_path / "m")}, access=str(tmp_path))) as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#keyed:not([hidden])")
        page.fill("#text", "tea")
        page.click("#ask")
        page.wait_for_selector("text=This service asks for an API key.")
        page.fill("#key", "rp_wrong")
        page.click("#ask")
        page.wait_for_selector("text=This key is not valid here.")
        page.fill("#key", key)
        page.click("#ask")
        page.wait_for_selector(".row.first")
        assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.key]")[:2] == [0, ""]
        page.close()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that asks for keys."""
    place = tmp_path_factory.mktemp("keyed")
    KeyStore(place).create("anna", ["predict"])
    with served(service_of({"m": tiny_classifier(place / "m")}, access=str(place))) as url:
        yield url


def test_the_interface_is_shown_without_a_key_and_from_here_alone(page: Any, keyed: str) -> None:
    page.goto(keyed + "/docs")
    page.wait_for_selector("details")
    paths = page.locator("summary code").all_inner_texts()
    assert paths == [path for path, found in httpx.get(keyed + "/openapi.json").json()["paths"].items() for _ in found]
    assert "Authorization: Bearer KEY" in page.inner_text("#line")
    assert "X-API-Key: KEY" in page.inner_text("#key")
    page.click("summary:has(code:text-is('/predict'))")
    shown = page.inner_text("details[open]")
    assert "text: string | string[]" in shown
    assert "predictions: " in shown
    for status in ("401", "403", "413", "414", "422", "429", "431", "504"):
        assert f"{status}\n" in shown
    assert page.locator("summary:has(code:text-is('/healthz'))").inner_text().endswith("no key")
    assert page.complaints == []
    assert page.hosts == {urlsplit(keyed).netloc}
    assert httpx.get(keyed + "/redoc").status_code == 401, "nothing else is open"


def test_every_model_of_the_interface_is_drawn_and_a_narrow_page_does_not_overflow(page: Any, keyed: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(keyed + "/docs")
    page.wait_for_selector("details")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    drawn = page.locator("pre").all_inner_texts()
    assert len(drawn) > 20
    assert not [one for one in drawn if "undefined" in one or "[object" in one]
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_several_columns_have_a_field_each(page: Any, tmp_path: Path) -> None:
    columns = tuple(
        Column(name=name, kind=kind, stored=f"input.{name}")
        for name, kind in {"title": "text", "price": "number", "new": "boolean", "tags": "set"}.items()
    )
    model = tiny_classifier(tmp_path / "several", columns=columns, form="fields")
    with served(service_of({"several": model})) as url:
        page.goto(url)
        page.get_by_label("title").fill("lovely cup")
        page.get_by_label("price").fill("4.5")
        page.get_by_label("new").select_option("true")
        page.get_by_label("tags").fill("tea | green")
        page.click("#ask")
        page.wait_for_selector(".row.first")
        shown = page.inner_text(".row.first span:first-child")
        row = {"title": "lovely cup", "price": 4.5, "new": True, "tags": ["tea", "green"]}
        assert httpx.post(url + "/predict", json={"rows": [row]}).json()["predictions"][0]["label"] == shown
        if folder := os.environ.get("PICTURES"):
            page.screenshot(path=f"{folder}/several.png", full_page=True)
    assert page.complaints == []
