"""A review of a project in service: evidence of a real run, MLflow's own database and a model's signature."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.conftest import Programs

pytestmark = pytest.mark.slow


def test_a_review_sees_what_a_run_has_left(programs: Programs, served: dict[str, Any]) -> None:
    found = programs.json("comply", "review", "--regime", "eu-ai-act", "-s", "high_risk=true")
    items = {item["check"]: (item["outcome"], item["evidence"]) for item in found["items"]}
    assert items["models_signed"][0] == "met", items["models_signed"]
    assert items["audit_verified"][0] == "met", items["audit_verified"]
    assert items["files_private"][0] == "met", items["files_private"]
    assert items["keys_required"] == ("met", "endpoints need a key; there are 0 active keys")
    assert items["accuracy_measured"][0] == "met", items["accuracy_measured"]
    assert items["data_documented"][0] in ("met", "partly"), items["data_documented"]
    assert "listen on 127.0.0.1 only" in items["transport_encrypted"][1]
    assert items["model_card"][0] == "partly", items["model_card"]
    assert items["slices_measured"][0] == "not met", items["slices_measured"]
