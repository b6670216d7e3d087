"""A run of the Python interface is the record in the run history, with its artifacts typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components import Artifact, Endpoint, Release, UserError
from raypath.deploy.api.run_results import Run
from raypath.deploy.execution.run_history import Run as Record
from raypath.deploy.execution.run_history import RunStatus, StepState, StepStatus

RELEASE = Release(name="topics", version=3, alias="champion", reason="better", serving=3, metrics={"f1": 0.5})
ENDPOINT = Endpoint(url="http://x/topics", name="topics", version=3)
SERVE = "raypath.components.serve:serve"


def _run(tmp_path: Path, **changes: Any) -> Run:
    evaluated = {
        "uri": "/e",
        "digest": "d1",
        "model": {},
        "data": {},
        "metrics": {"accuracy": 0.75, "accuracy_low": 0.7},
    }
    done: dict[str, Any] = {"status": StepStatus.DONE, "attempts": 1}
    steps = [
        StepState(name="read", status=StepStatus.REUSED, reason="nothing changed", key="k1"),
        StepState(
            name="evaluate", artifact=evaluated, warnings=["few rows"], notes=["measured"], seconds=1.23456, **done
        ),
        StepState(name="register", artifact=RELEASE.model_dump(mode="json"), warnings=["no champion"], **done),
        StepState(name="serve", artifact=ENDPOINT.model_dump(), key_inputs={"component": SERVE}, **done),
    ]
    fields = {"status": RunStatus.DONE, "started": 10.0, "ended": 12.5, "steps": steps, **changes}
    record = Record(id="r-1", workflow="flow", settings_digest="s", params={"seed": 1}, **fields)
    return Run.of(record, tmp_path)


def test_a_step_is_found_by_its_name(tmp_path: Path) -> None:
    run = _run(tmp_path)
    read, evaluate = run.step("read"), run.step("evaluate")
    assert (read.status, read.reason, read.key, read.artifact) == ("reused", "nothing changed", "k1", None)
    assert (evaluate.name, evaluate.seconds, evaluate.warnings) == ("evaluate", 1.235, ["few rows"])
    with pytest.raises(UserError, match="run r-1 has no step tune") as caught:
        run.step("tune")
    assert caught.value.fix == "its steps: read, evaluate, register, serve"


def test_results_are_those_of_the_steps(tmp_path: Path) -> None:
    run = _run(tmp_path)
    assert run.metrics == {"accuracy": 0.75, "accuracy_low": 0.7}, "of the test split, not those of the champion"
    assert (run.release, run.endpoint) == (RELEASE, ENDPOINT)
    assert run.warnings == ["few rows", "no champion"]
    assert (run.notes, run.step("evaluate").notes, run.step("read").notes) == (["measured"], ["measured"], [])
    assert (run.status, run.seconds, run.settings) == ("done", 2.5, {"seed": 1})
    assert repr(run) == "<Run r-1: done after 2.5 s, accuracy 0.7500, topics version 3 @champion, http://x/topics>"


def test_an_artifact_has_the_type_that_its_component_returns(tmp_path: Path) -> None:
    artifacts = _run(tmp_path).artifacts
    assert artifacts["serve"] == ENDPOINT
    assert artifacts["evaluate"] == Artifact(uri="/e", digest="d1"), "a run on a cluster does not name it"
    assert list(artifacts) == ["evaluate", "register", "serve"]


def test_without_results_of_its_own(tmp_path: Path) -> None:
    """A run whose process is gone has ended, and nobody knows when."""
    run = _run(tmp_path, status=RunStatus.RUNNING, ended=0.0, pid=2**30, steps=[StepState(name="read")])
    assert (run.status, run.seconds, run.metrics, run.release, run.endpoint) == ("interrupted", 0.0, {}, None, None)
    with pytest.raises(UserError, match="run r-1 has no endpoint"):
        run.client()
