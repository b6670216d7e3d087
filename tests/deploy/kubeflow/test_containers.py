"""What a container of a pipeline reads and writes, and what it says when it cannot run; without kfp and Ray."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from raypath.components import (
    Artifact,
    Context,
    Dataset,
    Params,
    PlatformError,
    UserError,
    component,
    workflow,
)
from raypath.components.core.artifacts import Report, Splits
from raypath.components.core.context import Tracking
from raypath.components.core.errors import StoreError, Unavailable
from raypath.components.core.graph import Ref
from raypath.components.tracking import uploader
from raypath.deploy.kubeflow import container, pipeline, single_step
from raypath.deploy.kubeflow.executor_io import ExecutorInput, _local, outputs_of
from raypath.deploy.kubeflow.single_step import PreparedStep
from raypath.deploy.local.state import ALWAYS


class Rows(Params):
    """How many."""

    rows: int = 3
    """Rows."""


class Count(Params):
    """Settings."""

    made: Rows = Rows()


@component(version=1)
def made(ctx: Context, params: Rows) -> Dataset:
    return Dataset(rows=params.rows)


@component(version=1)
def taken(ctx: Context, data: Dataset) -> Dataset:
    return Dataset(rows=data.rows + 1)


@workflow
def counted(p: Count) -> Artifact:
    return taken(made(p.made))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment as it was, after a container has put its own into this process; returns a home."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("MLFLOW_TRACKING_URI", "RAYPATH_STORE", "RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", *ALWAYS):
        os.environ.pop(name, None)
    return tmp_path / "home"


def test_messages_of_kubeflow(tmp_path: Path) -> None:
    artifacts = {"data": {"artifacts": [{"metadata": {"raypath_key": "k1"}}, {"metadata": {"raypath_key": "k2"}}]}}
    call = ExecutorInput.read(json.dumps({"inputs": {"parameterValues": {"plan": "p"}, "artifacts": artifacts}}))
    assert (call.parameters, call.keys()) == ({"plan": "p"}, {"data": "k1"})
    empty = ExecutorInput.read("{}")
    assert (empty.parameters, empty.keys()) == ({}, {})
    empty.write_outputs({"key": "k"}, {})
    with pytest.raises(PlatformError) as told:
        ExecutorInput.read("{{$}}")
    assert str(told.value) == "--executor_input is not JSON; start this from a pipeline"
    for metadata in ({}, {"metadata": {}}, {"metadata": {"raypath_key": ""}}):
        other = ExecutorInput({"inputs": {"artifacts": {"data": {"artifacts": [metadata]}}}})
        with pytest.raises(PlatformError) as foreign:
            other.keys()
        what = "input data was not made by a step of this pipeline"
        assert str(foreign.value) == f"{what}; run the whole pipeline, with caching off"


def test_outputs_are_files(tmp_path: Path) -> None:
    place = tmp_path / "deep"
    wanted = {
        "parameters": {"key": {"outputFile": f"{place}/key"}, "rows": {"outputFile": f"{place}/rows"}},
        "artifacts": {
            "output": {"artifacts": [{"name": "n1", "uri": f"{place}/output"}]},
            "metrics": {"artifacts": [{"uri": f"{place}/metrics"}]},
        },
        "outputFile": f"{place}/executor.json",
    }
    call = ExecutorInput({"outputs": wanted})
    call.write_outputs(
        {"key": "k", "rows": 3, "more": 1}, {"output": ({"a": 1}, {"m": 2}), "metrics": ({}, {"f1": 0.5})}
    )
    assert ((place / "key").read_text(), (place / "rows").read_text()) == ("k", "3")
    assert (place / "output").read_text() == '{\n "a": 1\n}'
    assert json.loads((place / "executor.json").read_text()) == {
        "artifacts": {
            "output": {"artifacts": [{"name": "n1", "uri": f"{place}/output", "metadata": {"m": 2}}]},
            "metrics": {"artifacts": [{"name": "metrics", "uri": f"{place}/metrics", "metadata": {"f1": 0.5}}]},
        }
    }


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://bucket/a", "/minio/bucket/a"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("gs://bucket/a", "/gcs/bucket/a"),
        ("oci://bucket/a", "/oci/bucket/a"),
        ("/tmp/a", "/tmp/a"),
    ],
)
def test_where_kubeflow_takes_an_output_from(uri: str, path: str) -> None:
    assert _local(uri) == Path(path)


def test_outputs_of_a_step() -> None:
    from raypath.components.core.artifacts import Model

    data = Dataset(uri="/d", digest="d1", rows=3, source="a.csv")
    splits = Splits(digest="s1", uri="/s", train=data, valid=data.model_copy(update={"rows": 1}), test=data)
    refs = [Ref("split", Splits), Ref("split", Dataset, ("valid",))]
    parameters, artifacts = outputs_of(splits, "k", True, refs)
    assert (parameters["key"], parameters["digest"], parameters["reused"]) == ("k", "s1", True)
    assert list(artifacts) == ["output", "output_valid"]
    content, metadata = artifacts["output_valid"]
    assert content == splits.valid.model_dump(mode="json")
    assert {"raypath_key": "k", "digest": "d1", "kind": "Dataset", "place": "/d", "rows": 1}.items() <= metadata.items()
    model = Model(task="text_classification", base="b", max_length=8)
    metrics = {"f1": 0.5, "f1/a": 0.25, "odd": float("nan")}
    report = Report(uri="/r", digest="r1", model=model, data=data, metrics=metrics)
    _, artifacts = outputs_of(report, "k", False, [Ref("evaluate", Report)])
    assert artifacts["metrics"][1] == {"f1": 0.5}
    assert set(artifacts["metrics"][0]) == set(metrics)


def test_a_container_without_a_store(environment: Path) -> None:
    with pytest.raises(UserError) as told:
        single_step.prepare_environment(environment)
    what = "RAYPATH_STORE is not set, so the next container would not find the artifacts of this one"
    assert str(told.value) == f"{what}; render the pipeline with -s kubeflow.store=..."


@pytest.mark.parametrize("cluster", [False, True])
def test_the_environment_of_a_container(environment: Path, cluster: bool, tmp_path: Path) -> None:
    os.environ |= {"RAYPATH_STORE": str(tmp_path / "store"), "RAY_USAGE_STATS_ENABLED": "1"}
    store = single_step.prepare_environment(environment, cluster=cluster)
    assert store.root == tmp_path / "store"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1", "the user's own"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in os.environ) is not cluster
    assert os.environ.get("RAY_ADDRESS") == (None if cluster else "local")
    assert os.environ.get("RAY_AUTH_TOKEN_PATH") == (None if cluster else str(environment / "ray.token"))


@pytest.fixture
def prepared(environment: Path, tmp_path: Path) -> Any:
    """`prepared("made", {})`: a step of the small workflow, in a store."""
    os.environ["RAYPATH_STORE"] = str(tmp_path / "store")
    store, graph = single_step.prepare_environment(environment), counted.trace(Count())

    def prepare(name: str, keys: dict[str, str], run: str = "r1", fresh: tuple[str, ...] = ()) -> PreparedStep:
        return single_step.prepare(graph, name, keys, {"run": run, "fresh": fresh}, store)

    return prepare


def test_steps_that_follow_each_other(prepared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first = prepared("made", {})
    assert single_step.reusable(first) is None
    with pytest.raises(PlatformError) as absent:
        single_step.committed(first)
    fix = "check that its pods use the same store"
    assert str(absent.value) == f"step made: the step ended without an output; {fix}"
    made_rows = single_step.run(first)
    assert single_step.committed(first) == single_step.reusable(first) == made_rows
    second = prepared("taken", {"data": first.spec.key})
    assert single_step.run(second).rows == 4  # type: ignore[attr-defined]
    with pytest.raises(StoreError) as lost:
        prepared("taken", {"data": "0" * 64})
    assert str(lost.value) == "step taken: the store lacks the output of made; run the pipeline again"
    assert single_step.reusable(prepared("made", {}, run="r1", fresh=("made",))) == made_rows, "a retry of the same run"
    again = prepared("made", {}, run="r2", fresh=("made",))
    assert single_step.reusable(again) is None
    assert single_step.reusable(prepared("made", {})) is None, "its record is gone"


def test_a_store_that_is_full(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step = prepared("made", {})
    monkeypatch.setattr(type(step.store), "free_bytes", lambda _: (1 << 30) - 1)
    with pytest.raises(StoreError) as told:
        single_step.run(step)
    assert (
        str(told.value)
        == "step made: the store has 1023 MiB free; wanted at least 1024 MiB; free space, then run again"
    )
    monkeypatch.setattr(type(step.store), "free_bytes", lambda _: 1 << 30)
    assert single_step.run(step).rows == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("uri", ["", "http://mlflow:5000"])
def test_metrics_are_uploaded_until_the_end(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(uploader.UploadThread, "start", lambda self: calls.append("start"))
    monkeypatch.setattr(uploader.UploadThread, "stop", lambda self, seconds: calls.append(seconds))
    place = Tracking(uri=uri, experiment="flow", parent="r1", spool=str(tmp_path / "spool"))

    def run() -> None:
        with single_step._uploading_metrics(place, counted.trace(Count())):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert calls == (["start", 30.0] if uri else [])


def test_where_metrics_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = counted.trace(Count())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert single_step.tracking(tmp_path, graph, "r1") == Tracking()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m")
    found = single_step.tracking(tmp_path, graph, "r1")
    assert found == Tracking(uri="http://m", experiment=graph.workflow, parent="r1", spool=f"{tmp_path}/spool")
    with pytest.raises(Unavailable) as told:
        single_step._unreachable("http://m")
    assert str(told.value) == "MLflow does not answer at http://m; start it, or set kubeflow.tracking"


def test_what_is_tried_again_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from raypath.components.data.sources import retry

    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("the store is away", fix="")
        return "done"

    assert single_step.with_retries(work, "read") == "done"
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in lines] == ["read: the store is away"] * 2
    assert all(line.endswith(" s") and "; retrying in " in line for line in lines)
    tries.clear()
    single_step.with_retries(work)
    assert capsys.readouterr().out.startswith("the store is away; retrying in ")


@pytest.mark.parametrize(
    ("raised", "status", "says"),
    [
        (None, 0, ""),
        (KeyboardInterrupt(), 130, "raypath: stopped\n"),
        (UserError("no column x", fix="name it"), 2, "raypath: no column x; name it\n"),
        (PlatformError("no space", fix="free some"), 1, "the trace\nraypath: no space; free some\n"),
    ],
)
def test_exit_statuses(
    raised: Any, status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def do(args: Any, home: Path) -> None:
        if raised is not None:
            if isinstance(raised, UserError | PlatformError):
                raised.add_note("the trace")
            raise raised

    monkeypatch.setattr(container, "configure_process", lambda **_: None)
    monkeypatch.setattr(container, "step", do)
    assert container.main(["step", "w", "--step", "s", "--executor_input", "{}"]) == status
    assert capsys.readouterr().err == says


def test_a_pipeline_of_other_code(environment: Path) -> None:
    from argparse import Namespace

    graph = counted.trace(Count())
    assert container._check_shape(graph, Namespace(shape=pipeline.shape(graph))) is graph
    assert container._check_shape(graph, Namespace(shape="")) is graph
    with pytest.raises(UserError) as told:
        container._check_shape(graph, Namespace(shape="x"))
    what = f"{graph.workflow} has other steps than this pipeline, with these settings or with this image"
    fix = "render it again with these settings, from the checkout that the image was built from"
    assert str(told.value) == f"{what}; {fix}"
    assert [container.text(value) for value in ("a", 1, [0.5], True, None)] == ["a", "1", "[0.5]", "true", "null"]
