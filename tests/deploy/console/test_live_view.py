"""The view of a run in a terminal and in a log: marks in their colors, times, and why a step ran or failed."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raypath.deploy.console.live_view import LiveView, PlainView, clock, view_for
from raypath.deploy.execution.progress import progress_file
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus

STEPS = [
    StepState(name="read", status=StepStatus.REUSED),
    StepState(name="split", status=StepStatus.DONE, seconds=75.0, warnings=["3 rows are rare"], notes=["80 [rows]"]),
    StepState(name="finetune", status=StepStatus.FAILED, seconds=1.5, error="a loss of nan [epoch 1]"),
    StepState(name="tune", status=StepStatus.STOPPED, seconds=2.0),
    StepState(name="register", status=StepStatus.WAITING, reason="needs finetune"),
]


def _run() -> Run:
    return Run(
        id="r-1",
        workflow="w",
        settings_digest="d",
        params={},
        status=RunStatus.FAILED,
        started=100.0,
        ended=3_825.0,
        steps=[step.model_copy() for step in STEPS],
    )


def _console(terminal: bool) -> Console:
    color = "standard" if terminal else None
    return Console(file=io.StringIO(), force_terminal=terminal, color_system=color, width=100, _environ={})


def _written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_status_has_its_mark_and_color(tmp_path: Path) -> None:
    console = _console(terminal=True)
    with view_for(tmp_path, console) as view:
        assert isinstance(view, LiveView)
        view.update(_run())
    shown = _written(console)
    for code, mark in ((34, "="), (32, "✓"), (31, "✗"), (33, "■"), (2, "·")):
        assert f"\x1b[{code}m{mark}\x1b[0m" in shown, mark
    for text in (
        "r-1  1:02:05",
        "1:15",
        "! 3 rows are rare",
        "80 [rows]",
        "a loss of nan [epoch 1]",
        "reused",
        "needs finetune",
    ):
        assert text in shown, text
    assert "\x1b[2K" not in shown[shown.rindex("needs finetune") :], "the last state is not erased"


def test_a_running_step_has_a_bar_its_time_and_its_message(tmp_path: Path) -> None:
    step = StepState(name="finetune", status=StepStatus.RUNNING, key="k", started=time.time() - 100)
    run = _run().model_copy(update={"steps": [step], "ended": 0.0, "started": time.time() - 7_200})
    shown = Console(file=io.StringIO(), force_terminal=False, width=100, _environ={})
    shown.print(LiveView(tmp_path, shown)._render(run))
    assert " ".join(_written(shown).split()).rstrip("━") == "r-1 2:00:00 ▸ finetune 1:40 "
    progress_file(tmp_path, "k").parent.mkdir()
    progress_file(tmp_path, "k").write_text(json.dumps({"done": 50, "total": 100, "message": "loss 0.5 [x]"}))
    shown = Console(file=io.StringIO(), force_terminal=False, width=100, _environ={})
    shown.print(LiveView(tmp_path, shown)._render(run))
    assert _written(shown).rstrip().endswith("loss 0.5 [x]")


def test_a_view_that_is_drawn_often_waits_but_for_the_last_state(tmp_path: Path) -> None:
    view = LiveView(tmp_path, _console(terminal=False))
    drawn: list[Any] = []
    view._live.update = lambda picture, refresh: drawn.append(refresh)  # type: ignore[method-assign]
    running = _run().model_copy(update={"status": RunStatus.RUNNING})
    for run in (running, running, _run(), _run()):
        view.update(run)
    assert drawn == [True] * 3


def test_in_a_log_a_step_has_a_line_for_each_change(tmp_path: Path) -> None:
    console = _console(terminal=False)
    with view_for(tmp_path, console) as view:
        assert isinstance(view, PlainView)
        run = _run()
        run.steps[1].status = StepStatus.RUNNING
        run.steps[1].reason = "split.valid [bold]0.1 -> 0.2"
        for _ in range(2):
            view.update(run)
        view.update(_run())
    assert _written(console).splitlines() == [
        "read         reused",
        "split        running: split.valid [bold]0.1 -> 0.2",
        "finetune     failed in 1.5 s",
        "tune         stopped",
        "split        done in 1:15",
        "split        80 [rows]",
        "split        warning: 3 rows are rare",
    ]


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1:00"), (3_599, "59:59"), (3_600, "1:00:00")]
)
def test_clock(seconds: float, wanted: str) -> None:
    assert clock(seconds) == wanted
