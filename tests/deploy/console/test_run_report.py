"""Where the end of a run, and `raypath runs NAME`, say that the evaluation report is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Dataset, Model, Report
from raypath.deploy.console.run_report import show_result, show_run
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus


def _run(home: Path, files: Path) -> Run:
    """A finished run whose step evaluate left its files in a folder."""
    model = Model(task="text_classification", base="tiny", max_length=8)
    made = Report(uri=str(files), model=model, data=Dataset(rows=1), metrics={"accuracy": 0.5})
    artifact: dict[str, Any] = made.model_dump(mode="json")
    step = StepState(name="evaluate", status=StepStatus.DONE, artifact=artifact)
    common: dict[str, Any] = {"workflow": "w", "settings_digest": "d", "params": {}, "status": RunStatus.DONE}
    run = Run(id="r1", started=time.time(), steps=[step], **common)
    (home / "runs").mkdir()
    run.save(home)
    return run


@pytest.mark.parametrize("written", [True, False])
def test_the_report_is_named_where_there_is_one(
    written: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tmp_path / "artifact"
    files.mkdir()
    if written:
        (files / "report.html").write_text("page")
    run = _run(tmp_path, files)
    show_result(None, run, 1.0)
    assert (f"  report            {files / 'report.html'}\n" in capsys.readouterr().out) is written
    show_run(tmp_path, "r1")
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].strip() == str(files / "report.html" if written else files)
