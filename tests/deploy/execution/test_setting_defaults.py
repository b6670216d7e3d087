"""Defaults and bounds of all settings, in settings.json: a change of one changes what users' runs do, and is meant."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.params import Params
from raypath.deploy.execution.workflow_loader import built_in_workflows, load_workflow
from raypath.deploy.kubernetes.serve_app import ServiceParams
from raypath.deploy.launchers import LAUNCHERS

PINNED: dict[str, Any] = json.loads((Path(__file__).parent / "settings.json").read_text(encoding="utf-8"))
PARAMS: dict[str, type[Params]] = {
    **{name: load_workflow(name).params_type for name in built_in_workflows()},
    **{name: importlib.import_module(module).PARAMS for name, module in LAUNCHERS.items()},
    "serve_app": ServiceParams,
}


@pytest.mark.parametrize("name", PARAMS)
def test_defaults_are_pinned(name: str) -> None:
    assert json.loads(json.dumps(PARAMS[name]().flat())) == PINNED["defaults"][name]


def test_bounds_are_pinned() -> None:
    found: dict[str, Any] = {}
    for kind in PARAMS.values():
        schema = kind.model_json_schema()
        for model in (schema, *schema.get("$defs", {}).values()):
            for field, facts in model.get("properties", {}).items():
                if bounds := _bounds(facts):
                    found[f"{model['title']}.{field}"] = bounds
    assert found == PINNED["bounds"]


def _bounds(facts: dict[str, Any]) -> dict[str, Any]:
    """What a value of a field is checked for, besides its type."""
    every = (facts, *facts.get("anyOf", ()), *facts.get("prefixItems", ()), facts.get("items", {}))
    left_out = {"title", "description", "default", "type", "format", "$ref", "anyOf", "prefixItems", "items"}
    return {key: value for each in every for key, value in each.items() if key not in left_out}
