"""The MLflow model that is written for a version: its configuration, signature, requirements and files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from raypath.components.registry import publish
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow", "ignore:.*type hint:UserWarning")


def test_what_is_written_for_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What MLflow uses, in place of the module of the standard library.
    packages = "importlib_metadata.packages_distributions"
    monkeypatch.setattr(packages, lambda: pytest.fail("all packages are read"))
    model = tiny_classifier(tmp_path / "model")
    completed: list[str] = []
    tags = {"raypath.metric.f1": "0.5", "raypath.key": "k"}
    logged = SimpleNamespace(model_id="m-1", source_run_id=None)
    folder = publish._write(model, tmp_path / "work", logged, tags, lambda place: completed.append(place.name))
    assert (folder, completed) == (tmp_path / "work" / "mlflow", ["model"])
    found = yaml.safe_load((folder / "MLmodel").read_text())
    flavor = found["flavors"]["python_function"]
    assert flavor["config"] == {"answer": "label", "auto": "AutoModelForSequenceClassification"}
    assert found["model_id"] == "m-1"
    assert json.loads(found["signature"]["inputs"]) == [{"type": "string", "name": "text", "required": True}]
    outputs = json.loads(found["signature"]["outputs"])
    assert [(column["name"], column["type"]) for column in outputs] == [("label", "string"), ("score", "double")]
    example = json.loads((folder / "input_example.json").read_text())
    assert example["data"] == [["A lovely cup of tea"], ["Arrived broken"]]
    names = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()]
    assert names == ["mlflow", "torch", "transformers", "numpy", "pandas"]
    artifacts = folder / "artifacts" / "model"
    assert json.loads((artifacts / "metrics.json").read_text()) == {"f1": 0.5}
    assert {"config.json", "raypath.json", "tokenizer.json"} <= {path.name for path in artifacts.iterdir()}
    assert not list(folder.rglob("*.pkl"))
