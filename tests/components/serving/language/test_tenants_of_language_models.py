"""Language models of two tenants in one endpoint: foreign models are absent, and their prefix caches are apart."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from raypath.components.inference.generation.selection import opening
from raypath.components.serving.api.route_table import RULES
from raypath.components.serving.metering.api_keys import KeyStore
from tests.components.serving.language.chat_server import chat_model, language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROMPT = "A long beginning that two customers happen to share, word for word, to its very end. " * 4
CHAT_ROUTES = sorted(route for route, need in RULES.items() if need == "chat")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A service of m, of tenant one, and n, of tenant two: the same weights, in an engine that caches prefixes."""
    home = tmp_path_factory.mktemp("tenants")
    folder = chat_model(home / "model", max_position_embeddings=1024)
    store = KeyStore(home / "keys")
    keys = {}
    for tenant, model in (("one", "m"), ("two", "n")):
        store.set_tenant(tenant, [model])
        keys[tenant] = store.create(tenant, tenant=tenant)[1]
    keys["viewer"] = store.create("viewer", tenant="one", role="viewer")[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "PARAMETERS", 0)
        service = language_service({"m": folder, "n": folder}, access=str(home / "keys"))
    assert service.models.main.engine.engine.name == "openvino-genai"
    with served_chat(service) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield SimpleNamespace(client=client, keys=keys)


def ask(place: SimpleNamespace, who: str, route: str, model: str, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": PROMPT}]
    inputs = {"/v1/chat/completions": {"messages": messages}, "/v1/responses": {"input": PROMPT}}
    limit = "max_output_tokens" if route == "/v1/responses" else "max_tokens"
    body = {"model": model, limit: 2, **inputs.get(route, {"prompt": PROMPT}), **more}
    return place.client.post(route, json=body, headers={"x-api-key": place.keys[who]})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", CHAT_ROUTES)
def test_a_foreign_model_gets_what_an_absent_one_gets(place: SimpleNamespace, route: str, stream: bool) -> None:
    for who, own, foreign in (("one", "m", "n"), ("two", "n", "m")):
        names = (foreign, "absent")
        replies = [ask(place, who, route, name, stream=stream) for name in names]
        texts = [reply.text.replace(f"no model {name};", "") for reply, name in zip(replies, names, strict=True)]
        assert (texts[0], {reply.status_code for reply in replies}) == (texts[1], {404})
        assert f"served models: {own}" in texts[0]
        assert ask(place, who, route, own, stream=stream).status_code == 200


@pytest.mark.parametrize("route", CHAT_ROUTES)
def test_a_viewer_generates_nothing(place: SimpleNamespace, route: str) -> None:
    assert ask(place, "viewer", route, "m").json()["detail"] == "this key is not for chat; its role is viewer"
    assert place.client.get("/v1/models", headers={"x-api-key": place.keys["viewer"]}).json()["data"][0]["id"] == "m"


def test_the_prefix_cache_of_one_tenant_answers_no_other(place: SimpleNamespace) -> None:
    """A prompt that one tenant has sent is not faster for another, nor counted as cached."""

    def cached(who: str, model: str, prompt: str) -> int:
        usage = ask(place, who, "/v1/completions", model, prompt=prompt).json()["usage"]
        return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))

    secret = "What only tenant one knows. " * 20
    assert cached("one", "m", secret) == 0
    assert cached("one", "m", secret) > 0
    assert cached("two", "n", secret) == 0
