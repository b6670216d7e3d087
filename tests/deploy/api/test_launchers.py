"""Settings of launchers beside those of a workflow: one params file serves every platform."""

from pathlib import Path
from typing import Any

import pytest

import raypath
from raypath.components import Artifact, Context, Dataset, Params, ParamsError, PlatformError, component, workflow
from raypath.deploy.execution.cache_key import settings_digest
from raypath.deploy.execution.run_history import Run
from raypath.deploy.execution.workflow_loader import load_workflow
from raypath.deploy.launchers import prepare, split_settings, trace


class Beam(Params):
    """A group with a launcher's name."""

    width: int = 1
    """Width."""


class Lamp(Params):
    """Settings of a workflow."""

    ray: Beam = Beam()


@component(version=1)
def shine(ctx: Context, params: Beam) -> Dataset:
    return Dataset(rows=params.width)


@workflow
def lamp(p: Lamp) -> Artifact:
    return shine(p.ray)


EVERY: dict[str, Any] = {
    "finetune.epochs": "3",
    "ray.store": "s3://bucket/a",
    "kuberay.workers": "2",
    "kubeflow.store": "s3://bucket/b",
}


def test_settings_of_other_launchers_are_checked_and_set_nothing(tmp_path: Path) -> None:
    flow = load_workflow("text_classification")
    assert trace(flow, EVERY) == trace(flow, {"finetune.epochs": "3"})
    _, request, own = prepare("local", "text_classification", EVERY, tmp_path)
    assert request.overrides == {"finetune.epochs": "3"}
    assert own.model_dump() == {}
    _, request, own = prepare("ray", "text_classification", EVERY, tmp_path)
    assert (request.overrides, own.model_dump()["store"]) == ({"finetune.epochs": "3"}, "s3://bucket/a")
    for key, says in (("kuberay.worker", "did you mean kuberay.workers?"), ("kuberay.workers", "kuberay.workers")):
        with pytest.raises(ParamsError) as told:
            trace(flow, {key: "many"})
        assert says in str(told.value)


def test_a_group_of_the_workflow_hides_a_launcher_that_is_not_used() -> None:
    assert split_settings(lamp, {"ray.width": "2"}) == ({"ray.width": "2"}, {})
    settings, launchers = split_settings(lamp, {"ray.store": "/store", "kuberay.workers": "2"}, {"ray"})
    assert (settings, sorted(launchers)) == ({}, ["kuberay", "ray"])
    assert (launchers["ray"].model_dump()["store"], launchers["kuberay"].model_dump()["workers"]) == ("/store", 2)
    with pytest.raises(ParamsError, match=r"unknown setting ray\.width"):
        split_settings(lamp, {"ray.width": "2"}, {"ray"})


def test_a_run_elsewhere_is_the_record_that_its_launcher_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.deploy.ray_cluster import launcher

    def run(request: Any, params: Any) -> None:
        digest = settings_digest(request.graph)
        for number, where in ((1, "http://c"), (2, "http://c"), (3, "")):
            common = {"workflow": "w", "settings_digest": digest, "params": {}, "steps": [], "cluster": where}
            Run(id=f"r-{number}", started=float(number), **common).save(request.home)

    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(launcher, "run", lambda *_: None)
    with pytest.raises(PlatformError) as told:
        raypath.run("batch_prediction", on="ray", home=tmp_path)
    assert str(told.value) == f"the run on ray left no record in {tmp_path}; see the output of the launcher"
    monkeypatch.setattr(launcher, "run", run)
    assert raypath.run("batch_prediction", on="ray", home=tmp_path).id == "r-2"
