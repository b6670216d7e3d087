"""Output of a run in logs and pipes."""

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from raypath.deploy.console import live_view
from raypath.deploy.execution.progress import progress_file
from raypath.deploy.execution.run_history import Run, StepState, StepStatus


def test_a_step_that_takes_long_reports_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "PLAIN_SECONDS", 0.2)
    out = io.StringIO()
    view = live_view.PlainView(tmp_path, Console(file=out))
    step = StepState(name="finetune", status=StepStatus.RUNNING, key="k", started=time.time() - 100)
    run = Run(id="r", workflow="w", settings_digest="d", params={}, started=0.0, steps=[step])
    view.update(run)
    view.update(run)
    assert out.getvalue() == "finetune     running\n"
    time.sleep(0.25)
    view.update(run)
    view.update(run)
    progress_file(tmp_path, "k").parent.mkdir()
    progress_file(tmp_path, "k").write_text(json.dumps({"done": 89, "total": 137, "message": "loss 0.481, 4 rows/s"}))
    time.sleep(0.25)
    view.update(run)
    assert out.getvalue().splitlines()[1:] == [
        "finetune     running for 1:40: no progress reported yet",
        "finetune     running for 1:40: 65%, loss 0.481, 4 rows/s",
    ]
    step.status, step.seconds = StepStatus.DONE, 101.0
    view.update(run)
    time.sleep(0.25)
    view.update(run)
    assert out.getvalue().splitlines()[3:] == ["finetune     done in 1:41"]
