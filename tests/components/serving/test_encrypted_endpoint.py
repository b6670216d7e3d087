"""Encrypted predictions of a real Ray Serve application, whose version comes from a real registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath import Client
from raypath.components.core.context import Context, Tracking
from raypath.components.homomorphic.encoder import write_encoder
from raypath.components.homomorphic.wire import FRESH_BYTES
from raypath.components.register import RegisterParams, register
from raypath.components.serve import serve
from raypath.components.serving.metering.api_keys import local_key
from raypath.components.serving.params import ServeParams
from tests.tiny_classifier import texts, tiny_classifier, tiny_dataset, tiny_report

pytest.importorskip("tenseal", reason="the extra he is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


def test_replicas_predict_on_ciphertexts_and_share_the_keys_of_clients(
    serve_url: str, mlflow_uri: str, make_context: Callable[..., Context], tmp_path: Path
) -> None:
    tracking, access = (
        Tracking(uri=mlflow_uri, experiment="encrypted", spool=str(tmp_path / "spool")),
        tmp_path / "keys",
    )
    fields: dict[str, Any] = {"tracking": tracking, "key": "encrypted", "serve_url": serve_url, "api_keys": access}
    model = tiny_classifier(tmp_path / "model")
    data = tiny_dataset(tmp_path / "data", model, rows=20)
    report = tiny_report(tmp_path / "report", model, data, 0.9)
    release = register.fn(make_context("register", **fields), model, report, RegisterParams(name="sealed"))
    write_encoder(tmp_path / "model", tmp_path / "encoder")
    settings = ServeParams(encrypted=True, replicas=2, threads=1, max_body=2_000_000)
    endpoint = serve.fn(make_context("serve", **fields), release, settings)
    key, lines = local_key(access).read_text(encoding="utf-8").strip(), texts(5)
    with Client(endpoint.url, key) as client:
        plain, found = client.predict(lines), client.predict_encrypted(lines, str(tmp_path / "encoder"))
    assert [each.label for each in found] == [each.label for each in plain]
    for one, two in zip(found, plain, strict=True):
        assert one.scores == pytest.approx(two.scores, abs=0.05)
    assert (found.model, found.version) == ("sealed", 1)
    stored = list((access / "usage" / "evaluation-keys").rglob("*.keys"))
    assert len(stored) == 1
    # One replica received the keys; requests by new connections reach both.
    path, headers = f"{endpoint.url}/encrypted/predict", {"x-api-key": key, "content-type": "application/octet-stream"}
    query: dict[str, Any] = {"version": 1, "keys": stored[0].stem, "texts": 1}
    for _ in range(8):
        response = httpx.post(path, params=query, content=bytes(FRESH_BYTES), headers=headers, timeout=60)
        assert response.status_code == 200, response.text
    response = httpx.post(path, params=query, content=bytes(FRESH_BYTES), timeout=60)
    assert response.status_code == 401
