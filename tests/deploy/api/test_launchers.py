"""Settings of launchers beside those of a workflow: one params file serves every platform."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components import Artifact, Context, Dataset, Params, ParamsError, component, workflow
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
