"""Embeddings, asked for with OpenAI's own client over a real HTTP server, against transformers by hand."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from raypath.components.core.artifacts import Model
from raypath.components.inference.backends.openvino_export import export
from raypath.components.inference.engine import Engine
from raypath.components.inference.pooling import embedder
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.model_versions import Role
from tests.components.serving.server import LIMITS, served, service_of
from tests.tiny_classifier import LENGTH, texts, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
openai = pytest.importorskip("openai", reason="the dependency group test has OpenAI's client")
LINES = [*texts(6), ""]
EMBED = LIMITS.model_copy(update={"max_embeddings": 50, "token_ids": True})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def place(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Address, a key for embeddings, one for predictions; the model m answers in fp32."""
    folder = tmp_path_factory.mktemp("keys")
    embed, predict = (KeyStore(folder).create(scope, [scope])[1] for scope in ("embed", "predict"))
    service = service_of({"m": model}, EMBED, access=str(folder))
    plain = dataclasses.replace(service.models.main, engine=Engine(Path(model.uri), precision="fp32"))
    service.models.active[Role.MAIN] = plain
    with served(service) as url:
        yield url, embed, predict


@pytest.fixture
def client(place: tuple[str, str, str]) -> Iterator[Any]:
    with openai.OpenAI(base_url=place[0] + "/v1", api_key=place[1], max_retries=0, timeout=20) as client:
        yield client


def by_hand(model: Model, ids: list[list[int]]) -> np.ndarray[Any, Any]:
    """The mean of the last hidden states, of length one, by transformers, a row at a time."""
    import torch
    from transformers import AutoModel

    bert = AutoModel.from_pretrained(model.uri, dtype=torch.float32).eval()
    with torch.no_grad():
        rows = [bert(input_ids=torch.tensor([row])).last_hidden_state[0].mean(dim=0).numpy() for row in ids]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def tokens(model: Model, lines: list[str], special: bool = True) -> list[list[int]]:
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(model.uri)
    return [
        list(row) for row in made(lines, truncation=True, max_length=LENGTH, add_special_tokens=special)["input_ids"]
    ]


@pytest.mark.parametrize("form", ["base64", "float"])
def test_the_clients_vectors_are_those_of_transformers(client: Any, model: Model, form: str) -> None:
    found = client.embeddings.create(model="m", input=LINES, encoding_format=form)
    wanted = by_hand(model, ids := tokens(model, LINES))
    given = [row.embedding for row in found.data]
    if form == "base64":
        given = [np.frombuffer(base64.b64decode(row), "<f4") for row in given]  # type: ignore[misc]
    np.testing.assert_allclose(np.array(given), wanted, atol=2e-6)
    assert [row.index for row in found.data] == list(range(len(LINES)))
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(map(len, ids))
    assert (found.model, found.version) == ("m", 1)


def test_the_client_decodes_what_it_asks_for_by_itself(client: Any, model: Model) -> None:
    found = client.embeddings.create(model="m", input=LINES[3])
    np.testing.assert_allclose([found.data[0].embedding], by_hand(model, tokens(model, [LINES[3]])), atol=2e-6)


def test_token_ids_are_taken_with_and_without_special_ones(client: Any, model: Model) -> None:
    wanted = by_hand(model, tokens(model, LINES[:3]))
    for given in (tokens(model, LINES[:3]), tokens(model, LINES[:3], special=False)):
        found = client.embeddings.create(model="m", input=given)
        np.testing.assert_allclose([row.embedding for row in found.data], wanted, atol=2e-6)
    single = client.embeddings.create(model="m", input=tokens(model, LINES[:1], special=False)[0])
    np.testing.assert_allclose([row.embedding for row in single.data], wanted[:1], atol=2e-6)


def test_dimensions_are_those_of_the_model_or_refused(client: Any) -> None:
    assert len(client.embeddings.create(model="m", input="tea", dimensions=32).data[0].embedding) == 32
    with pytest.raises(openai.UnprocessableEntityError, match="width 32 and cannot shorten them"):
        client.embeddings.create(model="m", input="tea", dimensions=16)


@pytest.mark.parametrize(
    ("given", "told", "param"),
    [
        ({"input": [[1, 2**70]]}, "input.lists.0.1: Input should be less than", "input.lists.0.1"),
        ({"input": [5, -1]}, "greater than or equal to 0", "input.ids.1"),
        ({"input": [5, 40_000]}, "input 0 has a token id beyond the vocabulary of 30,522", None),
        ({"input": [[7] * 100]}, "input 0 has 102 tokens; the model takes at most 32", None),
        ({"input": []}, "at least 1 item", "input.texts"),
        ({"input": [[]]}, "at least 1 item", "input.lists.0"),
        ({"input": ["SECRET", 5]}, "valid string", "input.texts.1"),
        ({"input": ["x"] * 51}, "51 texts; wanted at most 50", None),
        ({"input": ["x" * 501]}, "text 0 has 501 characters", None),
        ({"input": [True]}, "valid integer", "input.ids.0"),
        ({"input": "x", "encoding_format": "SECRET"}, "Input should be 'float' or 'base64'", "encoding_format"),
    ],
)
def test_a_wrong_request_is_told_in_the_clients_form(client: Any, given: Any, told: str, param: str | None) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(**{"model": "m", "encoding_format": "float", **given})
    assert told in caught.value.body["message"]
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
    assert "SECRET" not in caught.value.response.text
    assert caught.value.response.headers["content-type"] == "application/problem+json"


def test_a_model_that_is_not_here_is_named_so(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert (caught.value.code, caught.value.status_code) == ("model_not_found", 404)


def test_a_key_has_to_be_for_embeddings(place: tuple[str, str, str]) -> None:
    url, embed, predict = place
    body = {"model": "m", "input": "tea"}

    def status(path: str, key: str, given: Any) -> int:
        return httpx.post(url + path, json=given, headers={"authorization": f"Bearer {key}"}).status_code

    assert status("/v1/embeddings", embed, body) == 200
    assert status("/v1/embeddings", predict, body) == 403
    assert status("/predict", embed, {"text": "tea"}) == 403
    assert status("/predict", predict, {"text": "tea"}) == 200
    assert status("/v1/embeddings/", predict, body) == 404
    # With its retries: a server that refuses a request before it has read the body may reset the connection.
    with openai.OpenAI(base_url=url + "/v1", api_key=predict) as client:
        assert [model.id for model in client.models.list()] == ["m"]
        assert client.models.retrieve("m").owned_by == "raypath"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")
        with pytest.raises(openai.PermissionDeniedError):
            client.embeddings.create(model="m", input="tea")


@pytest.mark.parametrize("precision", ["bf16", "openvino"])
def test_an_engine_that_rounds_gives_plain_embeddings(model: Model, precision: str, tmp_path: Path) -> None:
    import shutil

    if precision == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    folder = tmp_path / "copy"
    shutil.copytree(model.uri, folder)
    if precision == "openvino":
        plain = Engine(folder, precision="fp32")
        export(folder, plain.task, folder)
    engine: Any = Engine(folder, precision=precision)  # type: ignore[arg-type]
    ids = tokens(model, LINES)
    before = engine.record(ids)
    made = embedder(engine, folder)
    cosines = (made.record(ids) * by_hand(model, ids)).sum(axis=1)
    assert cosines.min() > 0.999
    np.testing.assert_array_equal(engine.record(ids), before)
    if precision == "bf16":
        shared, own = made.model.embeddings.word_embeddings, engine.model.bert.embeddings.word_embeddings
        assert shared.weight is own.weight
