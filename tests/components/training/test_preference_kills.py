"""The workflow `preference`, killed in the midst of each of its later steps, ends with the bits of an unbroken run."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.context import Context, Tracking
from raypath.deploy.execution.runner import Runner
from raypath.deploy.store.store import Store
from raypath.workflows.preference import Preferences, preference
from tests.byte_llama import tiny_chat
from tests.deploy.execution.in_process import Here, Nobody
from tests.forks import forks

DRINKS = ("tea", "milk", "juice", "water")
ROWS = 300
"""More than one chunk of rows that the reference scores."""
KILLS = {"score_reference": 1, "finetune": 8, "evaluate_generation": 2, "register": 2}
"""Step, and the progress report at which its process ends: between its chunks, its optimizer steps, its stages."""


@dataclass(frozen=True)
class Case:
    """Runs of the workflow in a home of their own. reports: file of the steps whose progress was reported."""

    home: Path
    settings: dict[str, Any]
    mlflow: str

    @property
    def reports(self) -> Path:
        return self.home.with_suffix(".reports")

    def outcome(self) -> dict[str, Any]:
        """What the last run ended with."""
        found: dict[str, Any] = json.loads(self.home.with_suffix(".json").read_text("utf-8"))
        return found


class Tracked(Here):
    """Steps in this process, with a tracking server."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri = uri

    def tracking(self, experiment: str, run: str) -> Tracking:
        return Tracking(uri=self.uri, experiment=experiment)


def _run(case: Case, kill: str) -> None:
    """Run the workflow; the process is killed at a report of the step `kill`, "" for none."""
    seen, report = 0, Context.report

    def counted(self: Context, done: float, total: float, message: str = "") -> None:
        nonlocal seen
        report(self, done, total, message)
        with open(case.reports, "a", encoding="utf-8") as file:
            file.write(f"{self.step} {done:g}\n")
        if self.step == kill:
            seen += 1
            if seen == KILLS[kill]:
                os.kill(os.getpid(), signal.SIGKILL)

    Context.report = counted  # type: ignore[method-assign]
    runner = Runner(
        preference.trace(Preferences().override(case.settings)), Store(case.home).open(), Tracked(case.mlflow), Nobody()
    )
    runner.execute()
    done = {name: artifact.model_dump(mode="json") for name, artifact in runner.done.items()}
    reused = [step.name for step in runner.run.steps if step.status == "reused"]
    case.home.with_suffix(".json").write_text(json.dumps({"done": done, "reused": reused}), "utf-8")


def _process(case: Case, kill: str = "") -> int | None:
    process = forks().Process(target=_run, args=(case, kill))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """A tiny decoder and offers of which one is to be taken; every optimizer step has a checkpoint."""
    with open(tmp_path / "mine.jsonl", "w", encoding="utf-8") as file:
        for row in range(ROWS):
            prompt = f"{DRINKS[row % 4]} or {DRINKS[row // 4 % 4]} {row}"
            file.write(json.dumps({"prompt": prompt, "chosen": "yes please", "rejected": "no never"}) + "\n")
    return {
        "read.uri": str(tmp_path / "mine.jsonl"),
        "fetch.model": "",
        "finetune.base": str(tiny_chat(tmp_path / "base")),
        "finetune.lora": 4,
        "finetune.lora_dropout": 0.1,
        "finetune.epochs": 1,
        "finetune.batch_tokens": 512,
        "finetune.threads": 1,
        "finetune.checkpoint_seconds": 0.0,
        "evaluate.max_new_tokens": 6,
        "evaluate.plots": False,
        "registry.precision": "fp32",
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_each_later_step_it_ends_in_the_same_bits(
    settings: dict[str, Any], mlflow_uri: str, tmp_path: Path
) -> None:
    whole, cut = (
        Case(tmp_path / name, {**settings, "registry.name": f"preferences-{name}"}, mlflow_uri)
        for name in ("whole", "cut")
    )
    assert _process(whole) == 0
    before = 0
    for step in KILLS:
        assert _process(cut, step) == -signal.SIGKILL
        lines = cut.reports.read_text("utf-8").splitlines()
        assert lines[-1].startswith(step)
        if step == "evaluate_generation":  # the first process after the kill of the training
            steps = [int(line.split()[1]) for line in lines[before:] if line.startswith("finetune ")]
            assert steps[0] == KILLS["finetune"], "it resumed from the checkpoint of the step before the kill"
        before = len(lines)
    assert _process(cut) == 0
    found, wanted = cut.outcome(), whole.outcome()
    assert {"score_reference", "finetune", "evaluate_generation"} <= set(found["reused"])
    for step in ("score_reference", "finetune"):
        assert found["done"][step]["digest"] == wanted["done"][step]["digest"], step
    reports = [each["done"]["evaluate_generation"] for each in (found, wanted)]  # their digests cover speeds
    assert reports[0]["metrics"] == reports[1]["metrics"]
    predictions = [(Path(each["uri"]) / "predictions.parquet").read_bytes() for each in reports]
    assert predictions[0] == predictions[1]
    releases = [each["done"]["register"] for each in (found, wanted)]
    assert [(each["version"], each["alias"]) for each in releases] == [(1, "champion")] * 2, "registered once"
    assert releases[0]["reason"] == releases[1]["reason"]
