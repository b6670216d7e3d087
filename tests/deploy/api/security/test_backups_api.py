"""Drill: a project in service is backed up, its home is lost, and another folder serves the same model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.files import file_digest
from raypath.deploy.store.audit.log import read
from tests.deploy.conftest import Programs

pytestmark = pytest.mark.slow


def test_a_lost_home_is_restored_and_serves_the_same_model(
    programs: Programs, served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYPATH_BACKUP_KEY", str(tmp_path / "key"))
    place = str(tmp_path / "place")
    assert "without it no backup can be read" in programs.raypath("backup", "key", str(tmp_path / "key"))[0]
    before = programs.python("show(topics()[-1].client().predict('crisp and fresh').model_dump(mode='json'))")
    made = programs.json("backup", "create", place)
    assert made["new_bytes"] > 0
    assert programs.json("backup", "list", place) == [made["snapshot"]]
    assert programs.json("backup", "verify", place)["problems"] == []

    elsewhere = replace(programs, folder=tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    shutil.copytree(programs.folder, elsewhere.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".raypath"))
    assert "reuses every step" in elsewhere.raypath("backup", "restore", place)[0]
    records = {path.name: path.read_bytes() for path in (programs.home / "records").iterdir()}
    assert {path.name: path.read_bytes() for path in (elsewhere.home / "records").iterdir()} == records
    for folder in (elsewhere.home / "artifacts").iterdir():
        original = programs.home / "artifacts" / folder.name
        assert _digests(folder) == _digests(original)
    assert [each.action for each in read(elsewhere.home)][-1] == "backup.restore"
    assert json.loads(elsewhere.raypath("audit", "verify", "--json")[0])["problems"] == []
    try:
        found = elsewhere.python("""
run = raypath.run("text_classification", SETTINGS, fresh="serve")
prediction = run.client().predict("crisp and fresh").model_dump(mode="json")
show({"ran": {step.name: step.reason for step in run.steps if step.status == "done"}, "prediction": prediction})
""")
    finally:
        elsewhere.raypath("down")
    assert found == {"ran": {"serve": "asked for with --fresh"}, "prediction": before}


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}
