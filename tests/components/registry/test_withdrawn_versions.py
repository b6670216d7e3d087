"""Versions that were trained on a forgotten subject: marked, or deleted with their files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.errors import DataError
from raypath.components.registry.client import list_registered, mlflow_client, resolve
from raypath.deploy.cli import main as cli
from raypath.deploy.store.store import Store
from tests.tiny_classifier import register_classifier

DIGEST = "a" * 64


@pytest.fixture
def home(tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a subject's rows and the version that was trained on them."""
    (tmp_path / "registered").mkdir()
    register_classifier(mlflow_uri, tmp_path / "registered", "forgets", {"macro_f1": 0.5})
    store = Store(tmp_path / "home").open()
    folder = store.root / "artifacts" / DIGEST
    folder.mkdir()
    pq.write_table(pa.table({"text": ["a"], "id": ["u1"]}), folder / "part-0.parquet")
    (store.home / "mlflow").mkdir()
    (store.home / "mlflow" / "artifacts").symlink_to(Path(os.environ["RAYPATH_CACHE"]).parent / "files")
    released = {"name": "forgets", "version": 1, "alias": "champion", "digest": "release"}
    for step, artifact, inputs in (
        ("read", {"uri": f"artifacts/{DIGEST}", "digest": "rows"}, {}),
        ("register", released, {"input model": "rows"}),
    ):
        text = json.dumps({"key": step, "step": step, "artifact": artifact, "key_inputs": inputs})
        (store.root / "records" / f"{step}.json").write_text(text)
    monkeypatch.setenv("RAYPATH_HOME", str(store.home))
    monkeypatch.setenv("RAYPATH_REGISTRY", mlflow_uri)
    return store.home


def test_a_version_in_use_is_marked_and_one_that_is_not_is_deleted(
    home: Path, mlflow_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = home / "artifacts" / DIGEST / "part-0.parquet"
    saved, records = rows.read_bytes(), {p.name: p.read_text() for p in (home / "records").iterdir()}
    assert cli.main(["forget", "u1", "--models", "drop", "--yes"]) == 2
    assert "forgets version 1 is champion; promote another version first" in capsys.readouterr().err
    assert rows.exists(), "nothing is removed before"

    assert cli.main(["forget", "u1", "--yes"]) == 0
    assert "trained on them: forgets version 1" in capsys.readouterr().out
    with mlflow_client(mlflow_uri) as client:
        [found] = list_registered(client, "forgets")
        assert found.tags["raypath.forgotten"] == "1"
        name, version, folder = resolve(mlflow_uri, "models:/forgets@champion", tmp_path / "cache")
        assert (name, version, folder.is_dir()) == ("forgets", 1, True), "the signature still holds"

        rows.parent.mkdir()
        rows.write_bytes(saved)
        for file, text in records.items():
            (home / "records" / file).write_text(text)
        client.delete_registered_model_alias("forgets", "champion")
        cache = Path(os.environ["RAYPATH_CACHE"])
        resolve(mlflow_uri, "models:/forgets/1", cache / "models")
        location = client.get_logged_model(
            client.get_model_version("forgets", "1").source.removeprefix("models:/")
        ).artifact_location
        files = (home / "mlflow" / "artifacts" / location.removeprefix("mlflow-artifacts:/")).resolve()
        assert any(files.rglob("model.safetensors"))
        assert cli.main(["forget", "u1", "--models", "drop", "--yes"]) == 0
        assert list_registered(client, "forgets") == []
        assert not files.exists()
        assert list((cache / "models").glob("forgets-1-*")) == []
    with pytest.raises(DataError):
        resolve(mlflow_uri, "models:/forgets/1", tmp_path / "again")
