"""Versions of encoder-decoders, whole and as adapters alone: registered, fetched from the registry and opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import raypath
from raypath.components import Context
from raypath.components.core.context import Tracking
from raypath.components.inference.generation.local_chat import LocalChat
from raypath.components.register import RegisterParams, register
from tests.components.test_text_to_text import Trained

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
SOURCES = ["red cat tea", "dog", "blue blue blue"]


def _context(uri: str, folder: Path, key: str) -> Context:
    for name in ("out", "scratch"):
        (folder / key / name).mkdir(parents=True)
    tracking = Tracking(uri=uri, experiment="pairs", spool=str(folder / key / "spool"))
    return Context("register", folder / key / "out", folder / key / "scratch", workers=1, tracking=tracking, key=key)


@pytest.mark.parametrize("changes", [{}, {"finetune.lora": 4}], ids=["whole", "adapters"])
def test_a_version_opens_as_the_model_that_was_trained(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setenv("RAYPATH_REGISTRY", mlflow_uri)
    name = f"pairs-{len(changes)}"
    trained = Trained(tmp_path, rows=60, **{"finetune.epochs": 3, **changes})
    made = register.fn(_context(mlflow_uri, tmp_path, "one"), trained.model, trained.report, RegisterParams(name=name))
    assert (made.version, made.alias, made.task) == (1, "champion", "text_to_text")
    loaded = raypath.load(f"models:/{name}@champion", home=tmp_path / "home")
    assert isinstance(loaded, LocalChat)
    names = {path.name for path in loaded.folder.iterdir()}
    assert ("adapter_model.safetensors" in names) == ("model.safetensors" not in names) == bool(changes)
    wanted = raypath.load(trained.folder).generate(SOURCES, max_new_tokens=20)
    assert [each.text for each in loaded.generate(SOURCES, max_new_tokens=20)] == [each.text for each in wanted]
    assert any(each.text for each in wanted)

    again = register.fn(_context(mlflow_uri, tmp_path, "two"), trained.model, trained.report, RegisterParams(name=name))
    assert (again.version, again.alias) == (2, "challenger"), "it is no better on the same rows"
    for form in ("hf", *(["peft"] if changes else [])):
        raypath.export(f"models:/{name}/1", tmp_path / form, to=form, home=tmp_path / "home")
    exported = raypath.load(tmp_path / "hf").generate(SOURCES, max_new_tokens=20)
    assert [each.text for each in exported] == [each.text for each in wanted]
    if changes:
        assert (tmp_path / "peft" / "adapter_config.json").exists()
