"""A project folder as a user has one: odd data, a tiny base model, and the command line in processes of its own."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raypath.deploy.execution.run_history import Run, load_runs
from raypath.deploy.local import services
from tests.fork_server.start import forked_heads
from tests.stacks import stacks_below
from tests.tiny import tiny_bert

ROOT = Path(__file__).parent.parent.parent
WORDS = {
    "好评 👍": ["lovely", "great", "tasty", "很好", "fresh", "😊", "perfect"],
    'bad, or "meh"': ["awful", "stale", "broken", "差", "late", "💔", "bland"],
    "none": ["box", "arrived", "tuesday", "普通", "ordinary", "parcel", "blue"],
}


def write_rows(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV file with columns body and topic: three classes, commas, quotes, line ends, Chinese and emoji."""
    rng, any_words = random.Random(seed), [word for words in WORDS.values() for word in words]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body", "topic"])
        for number in range(rows):
            topic = rng.choice(sorted(WORDS))
            words = rng.choices(WORDS[topic], k=6) + rng.choices(any_words, k=3)
            writer.writerow([number, f"{number}: " + ", ".join(words) + ('\n"so"' if number % 9 == 0 else ""), topic])
    return path


@dataclass
class Project:
    """A folder with data.csv and base/, and what a user types in it."""

    folder: Path
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / ".raypath"

    def line(self, *args: str, workflow: str = "text_classification", **settings: object) -> list[str]:
        """The command line of `raypath run WORKFLOW` with the project's settings and these."""
        chosen = {**self.settings, **{k.replace("__", "."): v for k, v in settings.items()}}
        pairs = [part for key, value in chosen.items() for part in ("-s", f"{key}={value}")]
        return ["run", workflow, *args, *pairs]

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Begin `raypath ARGS`."""
        command = [sys.executable, "-m", "raypath.deploy.cli.main", *args]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "RAYPATH_HOME": str(self.home),
            "PYTHONWARNINGS": "default",
        }
        env.pop("RAY_AUTH_TOKEN_PATH", None)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True)

    def raypath(self, *args: str, status: int = 0) -> str:
        """Run `raypath ARGS` to its end and return what it printed; its exit status must be as wanted."""
        process = self.start(*args)
        try:
            out, err = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            stacks = stacks_below(self.folder)
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"{args} did not end\n{out}\n{err}\n{stacks}")
        assert process.returncode == status, f"{args}\n{out}\n{err}"
        return out + err

    def ask(self, url: str, body: object = None) -> Any:
        """What an endpoint answers to who has this machine's key."""
        key = (self.home / "access" / "local.key").read_text()
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as answer:
            return json.loads(answer.read())

    def kill_when(self, line: list[str], true: Callable[[Run], bool], sign: int = signal.SIGKILL) -> str:
        """Run a line and send the signal once the run history is as wanted; returns what it had printed."""
        process = self.start(*line)
        end = time.monotonic() + 300
        try:
            while not (self.home / "runs").is_dir() or not any(true(r) for r in self.last()):
                assert process.poll() is None, f"ended before it could be killed: {process.communicate()}"
                assert time.monotonic() < end
                time.sleep(0.02)
            process.send_signal(sign)
            out, err = process.communicate(timeout=60)
            return out + err
        finally:
            process.kill()
            process.communicate()

    def last(self, workflow: str = "text_classification") -> list[Run]:
        """The latest run of a workflow, if there is one."""
        return [run for run in load_runs(self.home) if run.workflow == workflow][-1:]

    def records(self) -> dict[str, float]:
        """Key and start time of every committed step."""
        found = [json.loads(path.read_text()) for path in (self.home / "records").glob("*.json")]
        return {record["key"]: record["started"] for record in found}


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, forks: None) -> Iterator[Path]:
    """The folder of several workflows, which share its services; each has its own data and model names."""
    folder = tmp_path_factory.mktemp("several")
    with forked_heads():
        services.up(Project(folder).home, wait=False, dashboard=False)
    yield folder
    Project(folder).raypath("down")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    write_rows(folder / "data.csv", 300)
    settings = {
        "read.uri": "data.csv",
        "read.text": "body",
        "read.label": "topic",
        "finetune.base": str(base_model),
        "finetune.frozen_layers": "0",
        "finetune.epochs": "8",
        "finetune.patience": "0",  # long enough to be killed three times on a fast machine
        "finetune.lr": "1e-3",
        "finetune.threads": "1",
        "finetune.batch_tokens": "128",
        "finetune.checkpoint_seconds": "0.3",
        "tune.trials": "2",
        "tune.rows": "64",
        "tune.lr": "1e-3,3e-3",
        "registry.name": "topics",
        "registry.precision": "fp32",  # the other workflows measure which one is the fastest
    }
    made = Project(folder, settings)
    yield made
    made.raypath("down")
