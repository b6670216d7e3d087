"""What the end of a run and `raypath runs` print."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Dataset, Model, Report
from raypath.deploy.console.run_report import show_result, show_run, show_runs
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


def test_the_result_of_a_run_and_the_run_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"log_loss": 0.5, "auc": 0.91, "auc_low": 0.9, "auc_high": 0.92, "accuracy": 0.75, "odd": 1.0}
    release = {"name": "reviews", "version": 3, "alias": "champion", "reason": "better [x]", "uri": str(tmp_path)}
    (tmp_path / "comparison.html").touch()
    steps = [
        StepState(name="read", status=StepStatus.REUSED),
        StepState(name="judge", status=StepStatus.DONE, artifact={"model": {}, "data": {}, "metrics": metrics}),
        StepState(name="register", status=StepStatus.FAILED, artifact=release),
        StepState(name="serve", status=StepStatus.WAITING),
    ]
    common: dict[str, Any] = {"workflow": "w", "settings_digest": "d", "params": {}, "steps": steps}
    run = Run(id="r-1", status=RunStatus.DONE, started=100.0, ended=165.0, **common)
    show_result(None, run, 65.0)
    assert capsys.readouterr().out.splitlines() == [
        *("", "done in 1:05, 1 of 4 steps reused"),
        "  test auc          0.9100  (95%: 0.9000 to 0.9200)",
        "  test accuracy     0.7500",
        "  test log_loss     0.5000",
        "  registered        reviews version 3 @champion",
        "  because           better [x]",
        f"  comparison        {tmp_path}/comparison.html",
    ]
    (tmp_path / "runs").mkdir()
    run.save(tmp_path)
    Run(id="r-2", started=time.time() - 3661, cluster="http://c", job_id="j", **common).save(tmp_path)
    Run(id="r-3", started=time.time(), pid=2**30, **common).save(tmp_path)
    show_runs(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"{'r-1':<48} done            1:05  2 of 4 steps ran",
        f"{'r-2':<48} running      1:01:01  2 of 4 steps ran, at http://c",
        f"{'r-3':<48} interrupted           2 of 4 steps ran",
    ]
