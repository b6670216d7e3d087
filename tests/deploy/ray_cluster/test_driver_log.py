"""What a driver without a client writes at the end of a run."""

from pathlib import Path

import pytest

from raypath.components import UserError
from raypath.components.core.errors import StepFailed
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
