"""A project with a home that several modules share: Python programs and commands, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.traps import Traps, write_traps
from tests.tiny import tiny_bert

ROOT = Path(__file__).parents[2]
GOOD, BAD = ["crisp", "fresh", "lovely", "ideal"], ["stale", "broken", "late", "bland"]
SETTINGS = {
    "read": {"uri": "data.csv", "text": "body", "label": "topic"},
    "preprocess.max_length": 32,
    "tune.trials": 0,
    "finetune": {
        # tests/deploy/cli/test_project.py runs what is chosen for few rows.
        "method": "full",
        "frozen_layers": 0,
        "epochs": 8,
        "lr": 5e-3,
        "head_factor": 1.0,
        "patience": 0,
        "threads": 1,
        "batch_tokens": 128,
    },
    "evaluate.plots": False,
    "registry": {"name": "topics", "precision": "fp32"},
}


@dataclass
class Programs:
    """A folder in which programs run; `settings` are of text_classification on its data and a tiny base model."""

    folder: Path
    settings: dict[str, Any]

    @property
    def home(self) -> Path:
        return self.folder / ".raypath"

    def command(self, code: str) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment of a program.

        `SETTINGS`, `show(value)` and `topics()`, the runs with these settings, are there for it.
        """
        lines = ["import json, raypath", f"SETTINGS = json.loads({json.dumps(self.settings)!r})"]
        lines += [
            "def topics(): return [run for run in raypath.runs() if run.settings.get('registry.name') == 'topics']"
        ]
        lines += ["def show(value): print('SHOWN' + json.dumps(value))", code]
        env = {**os.environ, "RAYPATH_HOME": str(self.home), "PYTHONPATH": str(ROOT / "src")}
        env.pop("RAY_AUTH_TOKEN_PATH", None)
        return [sys.executable, "-c", "\n".join(lines)], env

    def python(self, code: str) -> Any:
        """Run a program to its end; returns what it gave to `show`."""
        command, env = self.command(code)
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "INFO" not in done.stdout + done.stderr, "a log line of a library"
        shown = [line for line in done.stdout.splitlines() if line.startswith("SHOWN")]
        return json.loads(shown[-1].removeprefix("SHOWN")) if shown else None

    def raypath(self, *args: str, status: int = 0) -> tuple[str, str]:
        """Run `raypath ARGS`; returns standard output and standard error."""
        _, env = self.command("")
        command = [sys.executable, "-m", "raypath.deploy.cli.main", *args]
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=240)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout, done.stderr

    def json(self, *args: str, status: int = 0) -> Any:
        """What `raypath ARGS --json` printed; standard output has to be JSON and nothing else."""
        return json.loads(self.raypath(*args, "--json", status=status)[0])


def write_topics(path: Path, rows: int) -> None:
    """Write a CSV file of two classes, body and topic."""
    lines = ["body,topic"]
    for number in range(rows):
        words, topic = (GOOD, "praise") if number % 2 else (BAD, "complaint")
        picked = " and ".join(words[(number * 7 + k * (number % 3 + 1)) % 4] for k in range(4))
        lines.append(f"Order {number} was {picked},{topic}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Traps:
    return write_traps(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, traps: Traps) -> Iterator[Programs]:
    """A home whose services were started in a folder with modules that nothing may import."""
    folder = tmp_path_factory.mktemp("programs")
    write_topics(folder / "data.csv", 160)
    base = tiny_bert(tmp_path_factory.mktemp("base"))
    made = Programs(folder, {**SETTINGS, "finetune": {**SETTINGS["finetune"], "base": str(base)}})  # type: ignore[dict-item]
    up = traps.call(traps.one, made.home, "up")
    assert up.returncode == 0, up.stderr
    yield made
    made.raypath("down")


@pytest.fixture
def last_of_programs() -> None:
    """For the test that stops the services of `programs`: it comes after the others (tests/conftest.py)."""


@pytest.fixture(scope="session")
def served(programs: Programs) -> dict[str, Any]:
    """A run to an endpoint, as `raypath.run` returned it."""
    run = "raypath.run('text_classification', SETTINGS)"
    found: dict[str, Any] = programs.python(f"show({run}.model_dump(mode='json'))")
    return found
