"""The context of a step: its progress, and what of it travels."""

import json
import time
from pathlib import Path

from raypath.components import Context
from raypath.components.core.context import NoTracker


class Tracker(NoTracker):
    """One of its own."""


def test_progress_is_one_file_that_is_always_complete(tmp_path: Path) -> None:
    ctx = Context("s", tmp_path, tmp_path, progress=tmp_path / "progress.json")
    for done in (1, 2):
        ctx.report(done, 4, "rows")
        found = json.loads((tmp_path / "progress.json").read_text())
        assert abs(found.pop("time") - time.time()) < 60
        assert found == {"done": done, "total": 4, "message": "rows"}
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_step_goes_on_where_its_progress_cannot_be_written(tmp_path: Path) -> None:
    Context("s", tmp_path, tmp_path, progress=tmp_path / "none" / "progress.json").report(1, 2)
    Context("s", tmp_path, tmp_path).report(1, 2)
    assert not list(tmp_path.iterdir())


def test_a_copy_for_another_process_keeps_all_but_the_tracker(tmp_path: Path) -> None:
    ctx = Context("s", tmp_path, tmp_path, seed=3, track=Tracker(), node="n")
    copy = ctx.without_tracker()
    assert type(copy.track) is NoTracker
    assert (copy.seed, copy.selector) == (3, {"ray.io/node-id": "n"})
    assert Context("s", tmp_path, tmp_path).selector == {}
