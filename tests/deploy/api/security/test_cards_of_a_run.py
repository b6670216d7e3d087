"""Cards of a version that a run has registered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.conftest import Programs

pytestmark = pytest.mark.slow


def test_the_cards_tell_of_the_steps_behind_a_version(programs: Programs, served: dict[str, Any]) -> None:
    found = programs.python("""
folder = raypath.card("models:/topics@champion", "cards", license="CC-BY-4.0")
texts = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
try:
    raypath.card("models:/topics@champion", "cards")
except raypath.ParamsError as error:
    texts["error"] = str(error)
show(texts)
""")
    described = json.loads(found["croissant.json"])
    assert "## Training" in found["MODEL_CARD.md"]
    assert "license: cc-by-4.0" in found["DATA_CARD.md"]
    assert [each["name"] for each in described["recordSet"]] == ["train", "valid", "test"]
    assert all(len(each["sha256"]) == 64 for each in described["distribution"])
    assert "is not empty" in found["error"]
