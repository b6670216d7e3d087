"""Regimes: each loads, names checks and topics that exist, and a mistake in the YAML is reported with its place."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypath.components.compliance.checks.catalog import CHECKS
from raypath.components.compliance.profile import CONDITIONS
from raypath.components.compliance.regime import FOLDER, load_regime, parse_regime, regime_names, topics
from raypath.components.core.errors import ParamsError


@pytest.mark.parametrize("name", regime_names())
def test_a_regime_names_checks_and_topics_that_exist(name: str) -> None:
    regime = load_regime(name)
    assert regime.id == name
    for item in regime.items:
        assert item.check in CHECKS, item.id
        assert item.statement is None or item.statement in topics(), item.id
        assert item.requirement.endswith("."), item.id


def test_the_page_of_the_docs_counts_the_items() -> None:
    page = (Path(__file__).parents[3] / "docs" / "compliance.md").read_text(encoding="utf-8")
    for name in regime_names():
        assert re.search(rf"^\| `{name}` \|.*\| {len(load_regime(name).items)} \|$", page, re.M), name


def test_every_check_and_topic_is_used() -> None:
    items = [item for name in regime_names() for item in load_regime(name).items]
    assert set(CHECKS) - {item.check for item in items} == set()
    assert set(topics()) - {item.statement for item in items} == set()
    assert set(CONDITIONS) - {question for item in items for question in item.when} <= {"processors"}


def test_an_unknown_regime() -> None:
    with pytest.raises(ParamsError, match=r"no regime ccpa; give one of .*gdpr"):
        load_regime("ccpa")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"severity": "fatal"}, r"items\.0\.severity: Input should be 'high', 'medium' or 'low'"),
        ({"when": ["on_mondays"]}, r"items\.0: .*when has on_mondays; known are personal_data"),
        ({"requirement": "Short."}, r"items\.0\.requirement: String should have at least 20"),
        ({"check": "stated", "statement": None}, r"items\.0: .*needs a statement"),
        ({"quote": "..."}, r"items\.0\.quote: Extra inputs"),
        ({"id": "purpose"}, r"the file: .*items purpose are there twice"),
    ],
)
def test_mistakes_in_the_yaml(change: dict[str, Any], message: str) -> None:
    tree = copy.deepcopy(_gdpr())
    tree["items"][0] |= change
    with pytest.raises(ParamsError, match=rf"own\.yaml: {message}"):
        parse_regime(tree, "own.yaml")


def _gdpr() -> Any:
    return yaml.safe_load((FOLDER / "gdpr.yaml").read_text(encoding="utf-8"))
