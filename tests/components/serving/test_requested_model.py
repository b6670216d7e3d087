"""The model to which a request is counted: the one that it asked for, and never a name that a client made up."""

import asyncio
from pathlib import Path

import pytest
from fastapi import HTTPException

from raypath.components.serving.observability.request_context import RequestContext, request_scope
from tests.components.serving.server import service_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_request_is_counted_to_the_model_that_it_asked_for(tmp_path: Path) -> None:
    service = service_of({name: tiny_classifier(tmp_path / name) for name in ("m", "n")})

    def asked(*request: object) -> tuple[str, object]:
        with request_scope(context := RequestContext()):
            try:
                found = asyncio.run(service.select_model(*request))
            except HTTPException as error:
                return context.requested_model, error.status_code
            return context.requested_model, (found.name, found.version)

    assert asked() == ("m", ("m", 1))
    assert asked("m", 1) == ("m", ("m", 1))
    assert asked("n") == ("n", ("n", 1))
    assert asked("n", 2) == ("n", 404)
    assert asked(None, 2) == ("m", 404)
    assert asked("anna@example.org") == ("", 404)
    assert asked("") == ("", 404)


def test_a_model_that_was_taken_out_meanwhile_is_not_there(tmp_path: Path) -> None:
    service = service_of({name: tiny_classifier(tmp_path / name) for name in ("m", "n")})
    found = asyncio.run(service.status("n"))
    assert found["versions"] == {"m": 1, "n": 1}, "an additional model is loaded before"
    service.models.pool.versions.pop("n")
    service.models.pool.loaded.clear()
    with pytest.raises(HTTPException) as told:
        asyncio.run(service.select_model("n"))
    assert (told.value.status_code, told.value.detail) == (404, "no model n; served models: m, n")
    assert asyncio.run(service.status("n"))["versions"] == {"m": 1}
