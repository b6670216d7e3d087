"""Tracking: what is noted while MLflow is away arrives later, each point once."""

import json
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.context import Tracking
from raypath.components.tracking import run as runs
from raypath.components.tracking.login import variables
from raypath.components.tracking.run import attach, end_run, parse, track
from raypath.components.tracking.uploader import Uploader, UploadThread, reachable, upload_all
from raypath.deploy.local import services as local
from tests.waiting import until


def _tracking(uri: str, spool: Path) -> Tracking:
    return Tracking(uri=uri, experiment="exp", parent="run-1", spool=str(spool))


def _workflow(tracking: Tracking) -> Any:
    return track(tracking, name="run-1", kind="workflow", parent="", run_id="run-1", params={"a.b": 1})


def _points(client: Any, run: str, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in sorted(client.get_metric_history(run, key), key=lambda m: m.step)]


def _runs(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("exp")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


@pytest.mark.slow
def test_an_outage_in_mid_run_loses_nothing_and_doubles_nothing(mlflow_home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    server = local.up(mlflow_home, ray=False).mlflow
    assert server is not None
    tracking = _tracking(server.address, tmp_path / "spool")
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"png")
    carrier = UploadThread(tracking)
    with _workflow(tracking):
        carrier.start()
        with track(tracking, name="finetune", params={"lr": 0.1}) as run:
            for step in range(5):
                run.metrics({"loss": 5.0 - step}, step)
            until(lambda: upload_all(tracking) == 0)
            for path in (tmp_path / "spool").glob("*.jsonl"):
                carried = json.loads(path.with_suffix(".state").read_text())["offset"]
                assert carried == path.stat().st_size, "what was carried is not carried again"
            local.down(mlflow_home)
            assert not reachable(server.address)
            begin = time.monotonic()
            for step in range(5, 10):
                run.metrics({"loss": 5.0 - step}, step)
            run.dataset("reviews", "d" * 64, "a.csv", "train", 7)
            run.artifact(plot, "plots")
            run.tags({"reviewed": "yes"})
            assert time.monotonic() - begin < 1.0, "noting must not wait for the server"
        with track(tracking, name="trial-1", kind="trial", parent="run-1/finetune") as trial:
            trial.metrics({"score": 1.0} | {f"m{n}": 0.0 for n in range(1_200)}, 1)
            plot.unlink()
        assert upload_all(tracking) > 0
        again = local.up(mlflow_home, ray=False).mlflow
        assert again is not None
        assert again.address == server.address
    assert carrier.stop(20) == 0
    client = MlflowClient(server.address)
    runs = _runs(client)
    assert set(runs) == {"run-1", "finetune", "trial-1"}
    assert _points(client, runs["finetune"].info.run_id, "loss") == [(s, 5.0 - s) for s in range(10)]
    assert runs["finetune"].data.tags["mlflow.parentRunId"] == runs["run-1"].info.run_id
    assert runs["trial-1"].data.tags["mlflow.parentRunId"] == runs["finetune"].info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["finetune"].data.params == {"lr": "0.1"}
    assert runs["finetune"].data.tags["reviewed"] == "yes"
    assert len(runs["trial-1"].data.metrics) == 1_201, "more than fit in one request"
    assert runs["finetune"].inputs.dataset_inputs[0].dataset.name == "reviews"
    assert [f.path for f in client.list_artifacts(runs["finetune"].info.run_id, "plots")] == ["plots/plot.png"]
    # Carrying everything once more, as after a kill before the state was written, changes nothing.
    for state in (tmp_path / "spool").glob("*.state"):
        state.unlink()
    assert upload_all(tracking, 10) == 0
    assert set(_runs(client)) == set(runs)
    assert len(client.get_metric_history(runs["finetune"].info.run_id, "loss")) == 10


def _events(spool: Path) -> list[dict[str, Any]]:
    lines = [line for path in spool.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return [event for event in map(parse, lines) if event]


def test_a_resumed_run_does_not_repeat_points(tmp_path: Path) -> None:
    tracking = _tracking("", tmp_path)
    with track(tracking, name="s") as run:
        for step in range(3):
            run.metrics({"loss": float(step)}, step)
    with track(tracking, name="s") as run:
        for step in range(1, 5):
            run.metrics({"loss": float(step)}, step)
    steps = [e["step"] for e in _events(tmp_path) if e["event"] == "metrics"]
    assert steps == [0, 1, 2, 3, 4]


def test_cpu_and_memory_use_are_sampled_for_as_long_as_a_run_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs.SYSTEM_PERIOD == 5.0, "curves of an hour stay small, and a step of a minute has some points"
    monkeypatch.setattr(runs, "SYSTEM_PERIOD", 0.01)

    def steps() -> list[int]:
        return [event["step"] for event in _events(tmp_path) if event["event"] == "metrics"]

    for _ in range(2):  # the second time it is resumed
        before = len(steps())
        with track(_tracking("", tmp_path), name="s", system=True):
            until(partial(lambda before: len(steps()) >= before + 2, before))
        assert steps() == list(range(len(steps())))
    sample = next(event["values"] for event in _events(tmp_path) if event["event"] == "metrics")
    assert set(sample) == {
        f"system/{name}"
        for name in (
            "cpu_utilization_percentage",
            "system_memory_usage_megabytes",
            "system_memory_usage_percentage",
            "process_memory_megabytes",
        )
    }
    assert sample["system/process_memory_megabytes"] > 1
    count = len(steps())
    with track(_tracking("", tmp_path), name="other"):
        time.sleep(0.05)
    assert len(steps()) == count, "a trial has no samples: those of its step tell"


def test_a_line_cut_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    tracking = _tracking("", tmp_path)
    with track(tracking, name="s") as run:
        run.metrics({"loss": 1.0}, 1)
    with open(run.path, "ab") as file:
        file.write(b'{"event": "metrics", "val')
    with track(tracking, name="s") as run:
        run.metrics({"loss": 2.0}, 2)
    assert [e["step"] for e in _events(tmp_path) if e["event"] == "metrics"] == [1, 2]


def test_another_process_can_add_to_a_run_without_ending_it(tmp_path: Path) -> None:
    tracking = _tracking("", tmp_path)
    with track(tracking, name="s"):
        with attach(tracking, "s") as worker:
            worker.metrics({"loss": 1.0}, 1)
        assert [e["event"] for e in _events(tmp_path)] == ["open", "metrics"]
    assert [e["event"] for e in _events(tmp_path)] == ["open", "metrics", "close"]


def test_a_failed_step_is_noted_as_failed_and_files_are_private(tmp_path: Path) -> None:
    tracking = _tracking("", tmp_path / "spool")
    with pytest.raises(RuntimeError), track(tracking, name="s") as run:
        raise RuntimeError("boom")
    assert _events(tmp_path / "spool")[-1]["status"] == "FAILED"
    assert os.stat(run.path).st_mode & 0o077 == 0
    with pytest.raises(SystemExit), track(tracking, name="s"):
        raise SystemExit  # as Ray Tune ends a trial early
    assert _events(tmp_path / "spool")[-1]["status"] == "FINISHED"
    assert Uploader(tracking, run.path).upload() is False


def test_what_was_deleted_in_mlflow_is_restored(mlflow_uri: str, tmp_path: Path) -> None:
    """The experiment, then a run, while their metrics are on the way."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    tracking = Tracking(uri=mlflow_uri, experiment="deleted", parent="run-d", spool=str(tmp_path / "spool"))
    with track(tracking, name="run-d", kind="workflow", parent="", run_id="run-d") as above:
        assert upload_all(tracking) == 0
        experiment = client.get_experiment_by_name("deleted").experiment_id
        client.delete_experiment(experiment)
        above.metrics({"loss": 1.0}, 1)
        with track(tracking, name="finetune") as run:
            run.metrics({"loss": 2.0}, 1)
        assert upload_all(tracking, 20.0) == 0
        assert client.get_experiment(experiment).lifecycle_stage == "active"
        found = {run.info.run_name: run for run in client.search_runs([experiment])}
        assert {name: run.data.metrics["loss"] for name, run in found.items()} == {"run-d": 1.0, "finetune": 2.0}
        client.delete_run(found["run-d"].info.run_id)
        above.metrics({"loss": 3.0}, 2)
        assert upload_all(tracking, 20.0) == 0
    assert upload_all(tracking, 20.0) == 0
    assert client.get_run(found["run-d"].info.run_id).data.metrics["loss"] == 3.0
    client.delete_experiment(experiment)
    with track(tracking, name="run-e", kind="workflow", parent="", run_id="run-e"):
        assert upload_all(tracking, 20.0) == 0
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_a_rejected_login_is_reported_and_loses_nothing(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = Tracking(uri=mlflow_uri, experiment="rejected", parent="run-r", spool=str(tmp_path / "spool"))
    with track(tracking, name="run-r", kind="workflow", parent="", run_id="run-r") as run:
        run.metrics({"loss": 1.0}, 1)
    for name, value in variables("wrong").items():
        monkeypatch.setenv(name, value)
    thread = UploadThread(tracking)
    thread.start()
    assert thread.stop(1.0) == 1
    assert re.search(r"MLflow rejects this login; set MLFLOW_TRACKING_TOKEN.* metrics are kept", caplog.text)
    monkeypatch.undo()
    assert upload_all(tracking, 20.0) == 0


def test_a_run_whose_process_was_killed_is_ended_once(tmp_path: Path) -> None:
    tracking = Tracking(parent="p", spool=str(tmp_path))

    def events() -> list[str]:
        (file,) = tmp_path.glob("*.jsonl")
        lines = file.read_bytes().splitlines()
        return [event["event"] + event.get("status", "") for line in lines if (event := parse(line))]

    killed = track(tracking, name="a").__enter__()
    end_run(tracking, "p/b", "FAILED")
    for _ in range(2):
        end_run(tracking, "p/a", "FAILED")
    assert events() == ["open", "closeFAILED"]
    with track(tracking, name="a"):
        pass
    end_run(tracking, "p/a", "FAILED")
    assert events()[2:] == ["open", "closeFINISHED"], "a run that was opened again and ended is left alone"
    assert killed._file is not None
    killed._file.close()
