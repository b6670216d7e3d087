"""What a driver without a client writes at the end of a run."""

from pathlib import Path

import pytest

from raypath.components import ParamsError, UserError
from raypath.components.core.errors import StepFailed
from raypath.deploy.execution.run_history import Run, StepState, StepStatus
from raypath.deploy.ray_cluster import driver, platform
from raypath.deploy.ray_cluster.driver import LogWriter
from raypath.deploy.remote.events import RunEnd


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (
            RunEnd.from_error(UserError("-1 rows", fix="count upwards", step="count"), "Traceback: not for users"),
            "raypath: step count: -1 rows; count upwards\n",
        ),
        (
            RunEnd.from_error(StepFailed("division by zero", step="count"), "Traceback: line 3"),
            "Traceback: line 3\nraypath: step count: division by zero\n",
        ),
        (RunEnd(), "raypath: stopped\n"),
    ],
)
def test_the_log_ends_with_the_error(
    end: RunEnd, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LogWriter(tmp_path).end(end)
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("end", "said"), [(RunEnd(result={}, seconds=75.0), ["", "done in 1:15, 1 of 2 steps reused"]), (RunEnd(), [])]
)
def test_the_log_of_a_run_ends_with_its_result(
    end: RunEnd, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [StepState(name="read", status=StepStatus.REUSED), StepState(name="count", status=StepStatus.DONE)]
    writer = LogWriter(tmp_path)
    for _ in range(2):
        writer.update(Run(id="r-1", workflow="w", settings_digest="d", params={}, started=0.0, steps=steps))
    writer.end(end)
    out, error = capsys.readouterr()
    assert out.splitlines() == ["r-1", "read         reused", "count        done in 0.0 s", *said]
    assert error == ("" if said else "raypath: stopped\n")


def test_a_step_that_does_not_exist_is_named_before_the_cluster_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CronJob starts the driver without a client that would have checked it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platform, "RayClusterPlatform", lambda *_: pytest.fail("the cluster is used"))
    args = driver._parser().parse_args(["text_classification", "--fresh", "reed"])
    with pytest.raises(ParamsError, match=r"--fresh reed: no such step; did you mean read\?"):
        driver._run(args, tmp_path / "home", LogWriter(tmp_path))
