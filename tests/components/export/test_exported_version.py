"""Export of a registered version, from a real MLflow server: its files are checked, and its facts are on the card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import raypath
from raypath.components import DataError
from raypath.components.registry import client as registry
from tests.tiny_classifier import register_classifier, texts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")


@pytest.fixture(scope="module")
def place(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model of a registered version, `exported`."""
    place = tmp_path_factory.mktemp("exported")
    metrics = {"macro_f1": 0.5, "macro_f1_low": 0.25, "macro_f1_high": 0.75}
    source, base = "/home/somebody/rows.csv", "hf://someone/bert@abc"
    register_classifier(mlflow_uri, place, "exported", metrics, source, base=base)
    return place


@pytest.fixture(autouse=True)
def _of_the_tests(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_REGISTRY", mlflow_uri)


def test_a_version_by_alias(place: Path, tmp_path: Path) -> None:
    raypath.export("models:/exported@champion", tmp_path / "out", to="hf", home=tmp_path / "home")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "README.md", "bom.cdx.json", "config.json", "model.safetensors", "raypath.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nbase_model: someone/bert\nlibrary_name: transformers\n")
    assert "# exported v1\n" in card
    assert "On the test split (10 rows of rows.csv)." in card
    assert "| macro_f1 | 0.5 | 0.25 to 0.75 |" in card
    one, other = (raypath.load(folder).predict(texts(5)) for folder in (place / "model", tmp_path / "out"))
    assert [each.label for each in one] == [each.label for each in other]


def test_versions_that_are_not_there_or_were_altered(mlflow_uri: str, place: Path, tmp_path: Path) -> None:
    for model, message in (
        ("models:/expected/1", "the registry has no model expected; did you mean exported?"),
        ("models:/exported/7", "model exported has no version 7; its versions: 1"),
        ("models:/exported@best", "model exported has no alias best"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            raypath.export(model, tmp_path / "out", to="hf", home=tmp_path / "home")
    with registry.mlflow_client(mlflow_uri) as client:
        record = client.get_model_version("exported", "1").tags["raypath.signature"]
        client.set_model_version_tag("exported", "1", "raypath.signature", record[:-8] + "AAAAAA==")
        with pytest.raises(DataError, match="exported"):
            raypath.export("models:/exported/1", tmp_path / "out", to="hf", home=tmp_path / "home")
        client.set_model_version_tag("exported", "1", "raypath.signature", record)
    assert not (tmp_path / "out").exists()
