"""Stored specs of endpoints: what was saved is read, and those of another version of Raypath are told."""

from __future__ import annotations

import json

import pytest

from raypath.components import PlatformError
from raypath.components.serving.control.spec_store import load_spec, parse_spec, save_spec
from raypath.components.serving.params import ServeParams
from raypath.components.serving.spec import EndpointSpec


def test_a_spec_of_another_version_is_one_line() -> None:
    stored = json.dumps({"name": "topics", "serve": {"also": []}}).encode()
    with pytest.raises(PlatformError, match="topics was deployed by another version of Raypath; run its"):
        parse_spec("topics", stored)


@pytest.mark.usefixtures("ray_head")
def test_a_spec_is_read_as_it_was_saved_and_the_last_one_counts() -> None:
    assert load_spec("shop") is None
    spec = EndpointSpec(
        name="shop", tracking="", url="http://127.0.0.1:8000/shop", route="/shop", serve=ServeParams(), options={}
    )
    for replicas in (1, 3):
        saved = spec.model_copy(update={"serve": ServeParams(replicas=replicas)})
        save_spec(saved)
        assert load_spec("shop") == saved
    assert load_spec("shops") is None
