"""The OpenAPI document says what the endpoint does: Schemathesis makes requests of it, right ones and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath.components.serving.metering.api_keys import KeyStore
from tests.components.serving.server import served, service_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
EXAMPLES = 20
"""Requests of each kind for each route; more where somebody looks for more."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(service_of({"m": tiny_classifier(tmp_path_factory.mktemp("model"))})) as url:
        yield url


def test_models_stand_among_the_components(url: str) -> None:
    told = httpx.get(url + "/openapi.json").json()
    parts = told["components"]["schemas"]
    for path, name in (
        ("/predict", "Request"),
        ("/v1/embeddings", "EmbeddingRequest"),
        ("/v2/models/{model}/infer", "InferRequest"),
    ):
        schema = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{name}"}
        assert parts[name]["properties"]
    for path, methods in told["paths"].items():
        for answers in (method["responses"] for method in methods.values()):
            problems = [set(answer["content"]) for status, answer in answers.items() if status != "200"]
            assert all(kinds == {"application/problem+json"} for kinds in problems), path
    assert "HTTPValidationError" not in parts
    assert "securitySchemes" not in told["components"], "this service asks for no key"


def test_it_tells_how_a_key_is_sent_and_what_is_refused(tmp_path: Path) -> None:
    _, key = KeyStore(tmp_path).create("anna", ["embed"])
    with served(service_of({"m": tiny_classifier(tmp_path / "m")}, access=str(tmp_path))) as url:
        told = httpx.get(url + "/openapi.json").json()
        schemes = told["components"]["securitySchemes"]
        assert told["security"] == [{"bearer": []}, {"header": []}]
        assert (schemes["bearer"]["scheme"], schemes["header"]["name"]) == ("bearer", "X-API-Key")
        for path, methods in told["paths"].items():
            for method, one in methods.items():
                status = httpx.request(method, url + path).status_code
                assert (status == 401) == ("security" not in one) == ("401" in one["responses"]), path
                assert {"414", "431"} <= one["responses"].keys()
        assert httpx.post(url + "/predict", headers={"X-API-Key": key}).status_code == 403
        assert "403" in told["paths"]["/predict"]["post"]["responses"]
        for reply in (httpx.get(url + "/card"), httpx.get(url + "/docs"), httpx.get(url + "/nowhere")):
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_requests_made_of_the_document_are_answered_as_it_says(url: str, mode: str) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="the dependency group test has Schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import checks

    schema = schemathesis.openapi.from_url(url + "/openapi.json")
    # Texts have limits that a task's own schema does not know.
    left_out = [checks.CHECKS.get_one("positive_data_acceptance")]
    kind = schemathesis.GenerationMode(mode)
    quick = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    answered: dict[int, int] = {}

    def ask(case: Any) -> None:
        # No made-up name is the model's.
        for name in {"name", "model"} & set(case.path_parameters):
            case.path_parameters[name] = "m"
        if "version" in case.path_parameters:
            case.path_parameters["version"] = "1"
        if mode == "positive" and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "m"
        reply = case.call()
        if reply.status_code == 413:  # Schemathesis does not know the limit of bodies, and may make a larger one
            assert len(reply.request.body) > 100_000
            return
        case.validate_response(reply, excluded_checks=left_out)
        status = reply.status_code
        answered[status] = answered.get(status, 0) + 1

    for found in schema.get_all_operations():
        operation: Any = found.ok()
        if mode == "positive" or operation.method == "post":
            quick(given(case=operation.as_strategy(generation_mode=kind))(ask))()
    assert answered.keys() <= {200, 404, 422}
    assert answered[200 if mode == "positive" else 422] > 20
