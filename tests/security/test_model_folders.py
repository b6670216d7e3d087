"""Model and data folders from a stranger: no pickles, no remote code, nothing outside of the folder."""

import contextlib
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError
from raypath.components.data.sources.files import find
from raypath.components.inference.engine import Engine
from raypath.components.inference.local_model import LocalModel
from raypath.components.models.base_models import base_folder, build_model
from raypath.components.models.language_models import load_vocabulary
from tests.tiny import tiny_bert
from tests.tiny_classifier import tiny_classifier


class Runs:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_weights_in_a_pickle_alone_are_not_opened(tmp_path: Path) -> None:
    import torch

    for save in (
        lambda path: torch.save({}, path),
        lambda path: path.write_bytes(pickle.dumps(Runs(tmp_path / "ran"))),
    ):
        folder = Path(tiny_classifier(tmp_path / str(len(list(tmp_path.iterdir())))).uri)
        (folder / "model.safetensors").unlink()
        save(folder / "pytorch_model.bin")
        with pytest.raises(DataError, match="does not open"):
            Engine(folder)
        with pytest.raises(DataError, match="does not open"):
            build_model("AutoModelForSequenceClassification", str(folder), ("a", "b"), None)
        with pytest.raises(DataError, match=r"wanted \*\.safetensors; convert them"):
            base_folder(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_model_type_of_its_own_runs_no_code_and_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = tiny_bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    with pytest.raises(DataError, match="does not open"):
        build_model("AutoModelForSequenceClassification", str(folder), ("a", "b"), None)
    with pytest.raises(DataError, match="does not open"):
        load_vocabulary(folder)
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_known_model_type_is_not_run(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    kinds = ("AutoConfig", "AutoModelForSequenceClassification", "AutoModelForMaskedLM", "AutoTokenizer")
    config["auto_map"] = dict.fromkeys(kinds, "evil.Evil")
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    for kind in ("AutoModelForSequenceClassification", "AutoModelForMaskedLM"):
        with contextlib.suppress(DataError):
            build_model(kind, str(folder), ("a", "b"), None)
    with contextlib.suppress(DataError):
        load_vocabulary(folder)
    assert not (tmp_path / "ran").exists()


def link(folder: Path, outside: Path) -> None:
    (folder / "merges.txt").symlink_to(outside / "secret")


def climbing(folder: Path, outside: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside/secret"}}))


def absolute(folder: Path, outside: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": str(outside / "secret")}}))


@pytest.mark.parametrize("plant", [link, climbing, absolute])
def test_a_model_that_leads_outside_of_its_folder_is_refused(tmp_path: Path, plant: Callable[..., None]) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    (outside / "secret").write_text("SECRET")
    tiny_classifier(folder)
    base_folder(str(folder))
    plant(folder, outside)
    for opens in (lambda: base_folder(str(folder)), lambda: LocalModel(folder, "m", 0)):
        with pytest.raises(DataError, match="leads outside of its folder; copy the file into the folder"):
            opens()


def test_a_snapshot_of_the_hub_is_a_folder_of_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    tiny_classifier(snapshot)
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    assert base_folder(str(snapshot)) == snapshot


def test_a_data_folder_does_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("text,label\nSECRET,a\n")
    folder, log = tmp_path / "data", logging.getLogger("test")
    folder.mkdir()
    (folder / "a.csv").write_text("text,label\ntea,a\n")
    (folder / "same.csv").symlink_to("a.csv")
    assert len(find(str(folder), log)) == 2
    (folder / "b.csv").symlink_to(tmp_path / "secret.csv")
    for uri in (folder, folder / "*.csv"):
        with pytest.raises(DataError, match="is a link that leads outside of"):
            find(str(uri), log)
    assert find(str(folder / "b.csv"), log)[0].path == folder / "b.csv"
