"""`--json`: one stable schema for each command, documented, and nothing else on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from raypath.deploy.cli import main as cli
from raypath.deploy.cli.json_output import COMMANDS
from raypath.deploy.cli.parser import JSON_COMMANDS

ROOT = Path(__file__).parents[3]
PINNED: dict[str, Any] = json.loads((Path(__file__).parent / "json_schemas.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))


def _printed(capsys: pytest.CaptureFixture[str], *args: str, status: int = 0) -> Any:
    assert cli.main([*args, "--json"]) == status
    out = capsys.readouterr().out
    return json.loads(out) if out else None


@pytest.mark.parametrize("command", COMMANDS)
def test_the_schema_of_a_command_is_pinned(command: str) -> None:
    """Whoever adds a field adds it to json_schemas.json and docs/json.md; none is renamed or removed."""
    assert _shape(TypeAdapter(COMMANDS[command][1]).json_schema()) == PINNED[command]


def _shape(node: Any) -> Any:
    """A schema without its descriptions, which may be worded anew."""
    if isinstance(node, list):
        return [_shape(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    return {k: _shape(v) for k, v in node.items() if not (k == "description" and isinstance(v, str))}


def test_every_command_and_field_is_documented() -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    assert not [command for command in COMMANDS if f"| `raypath {command} --json` |" not in page]
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    for schema in PINNED.values():
        models = {**schema.get("$defs", {}), schema.get("title", ""): schema}
        for name, model in models.items():
            missing = [field for field in model.get("properties", ()) if f"| `{field}` |" not in sections[name]]
            assert not missing, f"{name}: {missing}"


def test_every_command_with_the_option_has_a_schema() -> None:
    assert {name for name in COMMANDS if name != "runs RUN" and " --" not in name} == set(JSON_COMMANDS)


def test_workflows_settings_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert "text_classification" in [each["name"] for each in _printed(capsys, "list")]
    shown = _printed(capsys, "show", "text_classification", "-s", "finetune.epochs=7")
    assert {"key": "finetune.epochs", "value": 7, "type": "int | auto"}.items() <= next(
        each for each in shown["settings"] if each["key"] == "finetune.epochs"
    ).items()
    assert all(each["description"] for each in shown["settings"])
    assert shown["steps"][1]["inputs"] == ["read"]
    checked = _printed(capsys, "check", "text_classification", "-s", "seed=3")
    assert (checked["steps"][0], checked["settings"]["seed"]) == ("read", 3)


def test_nothing_there_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(capsys, "runs") == []
    assert _printed(capsys, "keys", "list") == []
    assert _printed(capsys, "usage") == []
    status = _printed(capsys, "status")
    assert [each["state"] for each in status["services"]] == ["down", "down"]
    assert status["endpoints"] == []


def test_a_mistake_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "text_classification", "-s", "finetune.epochs=0", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("raypath: setting finetune.epochs")
    assert cli.main(["runs", "nothing", "--json"]) == 2


def test_keys_are_listed_without_their_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    made = _printed(capsys, "keys", "create", "acme", "--rate", "60", "--expires", "30d")
    assert made["key"].startswith(f"rp_{made['id']}_")
    [listed] = _printed(capsys, "keys", "list")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["requests_per_minute"], listed["status"]) == (60, "active")
    assert _printed(capsys, "keys", "revoke", "acme")["status"] == "revoked"


def test_a_dry_run_says_what_would_run_and_starts_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = _printed(capsys, "run", "text_classification", "--dry-run")
    assert {step["action"] for step in plan["steps"]} == {"run"}
    assert {step["reason"] for step in plan["steps"]} == {"it has not run before"}
    assert (plan["on"], plan["seconds"], len(plan["steps"])) == ("local", None, 11)
    assert cli.main(["run", "text_classification", "--dry-run"]) == 0
    assert "11 of 11 steps would run or may run" in capsys.readouterr().out
    assert not (tmp_path / "home" / "services.json").exists()
    assert not list((tmp_path / "home").glob("runs/*"))
