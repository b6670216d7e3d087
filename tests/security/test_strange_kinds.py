"""Kinds of columns that a model from a stranger names: nothing of them is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypath.components import DataError
from raypath.components.core.columns import Column
from raypath.components.inference.local_model import LocalModel
from raypath.deploy.cli.prediction.predict import predict_file
from tests.tiny_classifier import tiny_classifier

STRANGER = (Column(name="x", kind="strange_kind:Kind", stored="input.x"),)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, with the module that it names in the current folder, which is on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "strange_kind.py").write_text("open('executed', 'w').close()\nraise SystemExit(3)\n")
    (tmp_path / "d.csv").write_text("x\n1\n")
    return Path(tiny_classifier(tmp_path / "model", columns=STRANGER, form="fields").uri)


def test_predict_does_not_import_a_strangers_kind(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names the kind 'strange_kind:Kind' of a column"):
        predict_file(tmp_path / "home", str(model), "d.csv", None, [])
    assert not (tmp_path / "executed").exists()


def test_load_does_not_import_a_strangers_kind(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names the kind 'strange_kind:Kind' of a column"):
        LocalModel(model, "m", 1)
    assert not (tmp_path / "executed").exists()
