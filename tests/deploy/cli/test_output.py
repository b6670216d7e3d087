"""Output of commands in pipes, in locales that are not UTF-8, and with a standard output that is closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus

ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
"""Environment of a locale that has neither marks nor umlauts."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with runs enough to fill a pipe, and text that is not ASCII."""
    step = StepState(name="read", status=StepStatus.DONE, warnings=["no rows of class ü"])
    common = {"workflow": "flow", "settings_digest": "", "params": {}, "status": RunStatus.DONE, "steps": [step]}
    home = tmp_path_factory.mktemp("home") / "ü"
    (home / "runs").mkdir(parents=True)
    for number in range(900):
        Run(id=f"run-{number:04}-{'x' * 80}", started=float(number), ended=number + 1.0, **common).save(home)
    return home


def _raypath(home: Path, line: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `raypath` is the command."""
    env = os.environ | {"RAYPATH_HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env |= environment or {}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=env, capture_output=True, text=True, timeout=60, encoding="utf-8"
    )


@pytest.mark.parametrize("command", ["runs", "runs --json", "show text_classification"])
def test_a_reader_that_ends_is_no_error(home: Path, command: str) -> None:
    found = _raypath(home, f"raypath {command} | head -1")
    assert (found.returncode, found.stderr) == (0, ""), found
    assert len(found.stdout.splitlines()) == 1


def test_text_that_the_locale_cannot_encode_is_replaced(home: Path) -> None:
    found = _raypath(home, "raypath runs run-0001", ASCII)
    assert (found.returncode, found.stderr) == (0, "")
    assert "? read" in found.stdout
    assert "! no rows of class ?" in found.stdout


@pytest.mark.parametrize("environment", [ASCII, {}])
def test_json_is_the_same_in_every_locale(home: Path, environment: dict[str, str]) -> None:
    found = _raypath(home, "raypath runs run-0001 --json", environment)
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["warnings"] == ["no rows of class ü"]


def test_an_error_names_files_in_every_locale(home: Path) -> None:
    found = _raypath(home, "raypath check text_classification -f ü.yaml", ASCII)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.endswith(".yaml: No such file or directory; give a readable YAML file\n")


@pytest.mark.parametrize("command", ["runs last", "runs last --json", "--help"])
def test_a_closed_output_is_no_error(home: Path, command: str) -> None:
    found = _raypath(home, f"raypath {command} >&-")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
