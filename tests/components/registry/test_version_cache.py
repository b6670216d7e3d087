"""Model versions on this machine, from a real registry: a damaged copy is fetched anew, and one fetches it for all."""

import threading
from pathlib import Path
from typing import Any

import mlflow.artifacts
import pytest

from raypath.components import DataError
from raypath.components.registry import cache
from raypath.components.registry import client as registry
from raypath.components.serving.model_versions import ModelVersion
from raypath.components.serving.replica import loader
from tests.tiny_classifier import register_classifier

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")


@pytest.fixture(scope="module")
def wanted(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """A registered version."""
    register_classifier(mlflow_uri, tmp_path_factory.mktemp("cached"), "cached", {"macro_f1": 0.5})
    with registry.mlflow_client(mlflow_uri) as client:
        found = registry.get_version(client, "cached", 1)
        return ModelVersion(name="cached", version=1, source=found.source, tags=found.tags)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is downloaded while the test runs."""
    real, found = mlflow.artifacts.download_artifacts, []

    def download(*args: Any, **kwargs: Any) -> str:
        found.append(kwargs["artifact_uri"])
        return real(*args, **kwargs)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    return found


def damage(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def test_a_damaged_copy_is_fetched_anew_and_condemns_nobody(
    mlflow_uri: str, wanted: ModelVersion, fetched: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = loader.load(mlflow_uri, wanted, 1).folder
    del fetched[:]
    damage(folder)
    assert loader.load(mlflow_uri, wanted, 1).version == 1
    assert (folder / "tokenizer.json").read_text() != "{}"
    assert len(fetched) == 1
    assert "is corrupt and is fetched again" in caplog.text


def test_one_that_is_damaged_in_the_registry_is_fetched_twice_and_refused(
    mlflow_uri: str, wanted: ModelVersion, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cache._download
    loader.load(mlflow_uri, wanted, 1)
    damage(cache.cached(mlflow_uri, wanted.name, 1, wanted.source, cache.cache_folder()) or Path())
    del fetched[:]

    def download(client: Any, uri: str, found: Any, folder: Path) -> None:
        real(client, uri, found, folder)
        damage(folder)

    monkeypatch.setattr(cache, "_download", download)
    with pytest.raises(DataError, match=r"has a file tokenizer\.json that is not the one"):
        loader.load(mlflow_uri, wanted, 1)
    assert len(fetched) == 1


def test_many_who_want_a_version_fetch_it_once(
    mlflow_uri: str, wanted: ModelVersion, fetched: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[Path] = []

    def resolve() -> None:
        found.append(registry.resolve(mlflow_uri, "models:/cached/1", tmp_path)[2])

    threads = [threading.Thread(target=resolve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found)), len(fetched)) == (4, 1, 1)
