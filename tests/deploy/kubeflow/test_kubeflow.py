"""The launcher for Kubeflow: what is rendered, and the pipeline run container by container by kfp's local runner."""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from raypath.components import Params, ParamsError, UserError
from raypath.components.models import bf16
from raypath.components.training.params import TrainingParams
from raypath.deploy.execution.workflow_loader import built_in_workflows, load_workflow
from raypath.deploy.kubeflow import api as kubeflow_api
from raypath.deploy.kubeflow import container, pipeline, single_step
from raypath.deploy.kubeflow import launcher as kubeflow
from raypath.deploy.launchers import RunRequest, prepare
from raypath.deploy.local.launcher import run_graph
from raypath.deploy.triggers import schedule
from tests.deploy.kubeflow.golden.__main__ import HERE, golden
from tests.deploy.kubeflow.kubeflow_local import local_runner, told
from tests.k8s.manifests import IMAGE
from tests.tiny import tiny_bert
from tests.workflows.conftest import write_rows

pytestmark = pytest.mark.skipif(importlib.util.find_spec("kfp") is None, reason="needs the extra `kubeflow`")
FLOW = "tests.deploy.kubeflow.kubeflow_flow:judged"
PLACE = {"kubeflow.image": IMAGE, "kubeflow.store": "s3://bucket/team", "kubeflow.endpoint": "http://reviews:8000"}


def _planned(tmp_path: Path, workflow: str = "text_classification", **changes: Any) -> tuple[RunRequest, Any]:
    settings = PLACE | {key.replace("__", "."): value for key, value in changes.items()}
    _, job, params = prepare("kubeflow", workflow, settings, tmp_path)
    return job, params


def _rendered(tmp_path: Path, workflow: str = "text_classification", **changes: Any) -> tuple[Any, Any]:
    spec, platform = yaml.safe_load_all(kubeflow.render(*_planned(tmp_path, workflow, **changes)))
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize("workflow", built_in_workflows())
def test_every_workflow_is_as_its_golden_file(workflow: str) -> None:
    """Regenerate them with `python -m tests.deploy.kubeflow.golden`."""
    written = (HERE / f"{workflow}.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load_all(golden(workflow))) == list(yaml.safe_load_all(written))


def test_the_precision_of_the_shell_is_that_of_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("fp32", ""):
        monkeypatch.setenv(bf16.VARIABLE, value)
        spec, _ = _rendered(tmp_path)
        boxes = [each["container"] for each in spec["deploymentSpec"]["executors"].values()]
        found = [{each["name"]: each["value"] for each in box["env"]}.get(bf16.VARIABLE, "") for box in boxes]
        assert set(found) == {value}


@pytest.mark.parametrize("workflow", built_in_workflows())
def test_a_pipeline_has_the_steps_and_edges_of_its_graph_and_nothing_is_cached_but_by_us(workflow: str) -> None:
    spec = next(yaml.safe_load_all(golden(workflow)))
    graph, tasks = load_workflow(workflow).trace(), spec["root"]["dag"]["tasks"]
    named = {node.name: node.name.replace("_", "-") for node in graph.nodes}  # as kfp names the task of a component
    assert set(tasks) == {"settings", *named.values()}
    assert all(not task["cachingOptions"].get("enableCache") for task in tasks.values())
    for node in graph.nodes:
        drawn = tasks[named[node.name]]["inputs"].get("artifacts", {})
        edges = {(name, edge["taskOutputArtifact"]["producerTask"]) for name, edge in drawn.items()}
        assert edges == {(name, named[ref.step]) for name, ref in pipeline.references(node)}
        for name, edge in drawn.items():
            made = spec["components"][f"comp-{edge['taskOutputArtifact']['producerTask']}"]["outputDefinitions"]
            taken = spec["components"][f"comp-{named[node.name]}"]["inputDefinitions"]["artifacts"][name]
            assert made["artifacts"][edge["taskOutputArtifact"]["outputArtifactKey"]] == taken


@pytest.mark.parametrize("workflow", built_in_workflows())
def test_the_parameters_are_the_settings_with_types_and_lead_back_to_them(workflow: str) -> None:
    spec = next(yaml.safe_load_all(golden(workflow)))
    graph, given = load_workflow(workflow).trace(), spec["root"]["inputDefinitions"]["parameters"]
    values = {name: one["defaultValue"] for name, one in given.items() if name != "fresh"}
    assert _params(graph.params, values) == graph.params
    kinds = {pipeline.setting(name): one["parameterType"] for name, one in given.items()}
    assert kinds["read.uri"] == "STRING"
    assert kinds["seed"] == "NUMBER_INTEGER"
    if workflow == "text_classification":
        assert kinds["finetune.weight_decay"] == "NUMBER_DOUBLE"
        assert kinds["finetune.lr"] == "STRING", "or auto"
        assert kinds["tune.lr"] == "LIST"
        assert kinds["finetune.shard"] == "BOOLEAN"
        assert given["finetune__epochs"]["description"]


def _params(params: Params, values: Mapping[str, Any]) -> Params:
    return params.override({pipeline.setting(name): container.text(value) for name, value in values.items()})


def test_a_setting_of_the_command_line_is_the_pages_default(tmp_path: Path) -> None:
    spec, _ = _rendered(tmp_path, finetune__epochs="7", finetune__profile="3", read__valid="x.csv")
    given = spec["root"]["inputDefinitions"]["parameters"]
    assert given["finetune__profile"]["defaultValue"] == 3
    assert given["finetune__epochs"]["defaultValue"] == "7", "a text, since it may be auto"
    assert (given["read__valid"]["defaultValue"], given["read__test"]["defaultValue"]) == ("x.csv", "none")


def test_each_step_gets_its_room_and_only_what_trains_gets_gpus(tmp_path: Path) -> None:
    sizes = {"kubeflow__gpus": "2", "kubeflow__steps.finetune.memory": "64Gi", "kubeflow__steps.read.cpus": "0.5"}
    sizes["kubeflow__steps.split.memory"] = "1.5Gi"
    spec, platform = _rendered(tmp_path, **sizes)
    boxes = {name: one["container"] for name, one in spec["deploymentSpec"]["executors"].items()}
    assert {box["image"] for box in boxes.values()} == {IMAGE}
    gpus = {name.removeprefix("exec-") for name, box in boxes.items() if "accelerator" in box["resources"]}
    trains = {n.name for n in load_workflow("text_classification").trace().nodes
              if any(isinstance(a, TrainingParams) for a in n.arguments)}  # fmt: skip
    assert gpus == trains == {"configure", "tune", "finetune"}, "configure measures steps of training"
    finetune = boxes["exec-finetune"]["resources"]
    assert (finetune["resourceMemoryLimit"], finetune["accelerator"]["resourceCount"]) == ("64Gi", "2")
    assert boxes["exec-read"]["resources"]["resourceCpuLimit"] == "0.5"
    assert boxes["exec-split"]["resources"]["resourceMemoryLimit"] == "1536Mi"
    assert all(box["resources"]["resourceMemoryLimit"] == box["resources"]["resourceMemoryRequest"]
               for box in boxes.values())  # fmt: skip
    assert all(one["securityContext"]["runAsNonRoot"] for one in platform.values())
    assert all(one["secretAsEnv"][0]["secretName"] == "raypath-storage" for one in platform.values())
    assert platform["exec-finetune"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_a_store_on_a_claim_is_mounted_and_the_secret_is_for_data_alone(tmp_path: Path) -> None:
    _, platform = _rendered(tmp_path, kubeflow__store="/store/team", kubeflow__claim="raypath-store")
    for one in platform.values():
        assert all(secret["optional"] for secret in one["secretAsEnv"])
        assert (one["pvcMount"][0]["constant"], one["pvcMount"][0]["mountPath"]) == ("raypath-store", "/store/team")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kubeflow__image": ""}, "no image is set; -s kubeflow.image="),
        ({"kubeflow__image": "raypath:1.0"}, "is not pinned by digest"),
        ({"kubeflow__name": "n" * 58}, "58 characters; Kubeflow allows 57; set kubeflow.name"),
        ({"kubeflow__name": "Upper"}, "should match pattern"),
        ({"kubeflow__store": ""}, "no store is set"),
        ({"kubeflow__store": "/store"}, "is not on a mounted volume; set kubeflow.claim"),
        ({"kubeflow__store": "gs://bucket"}, "is not shared between pods"),
        ({"kubeflow__endpoint": ""}, "an endpoint of step serve would end with its container"),
        ({"kubeflow__steps.finetun.gpus": "1"}, "kubeflow.steps names finetun, which is not a step"),
        ({"kubeflow__steps.finetune.gpu": "1"}, "kubeflow.steps names|steps.finetune.gpu"),
        ({"kubeflow__ray": "tuna"}, "kubeflow.ray names tuna, which is not a step"),
        ({"kubeflow__ray": "finetune", "finetune__workers": "9"}, "9 training workers, but the nodes have"),
        ({"kubeflow__memory": "8 GB"}, "should match pattern"),
        ({"kubeflow__imag": "x"}, "unknown setting kubeflow.imag; did you mean kubeflow.image?"),
        ({"finetune__epoch": "3"}, "did you mean finetune.epochs?"),
    ],
)
def test_what_kubeflow_would_refuse_is_told_before(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises((UserError, ParamsError)) as told:
        _rendered(tmp_path, **changes)
    assert any(word in str(told.value) for word in says.split("|"))


def test_steps_of_one_component_and_names_that_meet_are_kept_apart(tmp_path: Path) -> None:
    spec, _ = _rendered(tmp_path, "pretraining", unlabelled__uri="sample://movies")
    tasks = spec["root"]["dag"]["tasks"]
    assert {"read", "read-2", "split-2", "preprocess-2"} <= set(tasks)
    assert tasks["split-2"]["inputs"]["artifacts"]["data"]["taskOutputArtifact"]["producerTask"] == "read-2"
    crowded = "tests.deploy.kubeflow.kubeflow_flow:crowded"
    again = _rendered(tmp_path, crowded)[0]["components"]["comp-again"]
    assert set(again["inputDefinitions"]["artifacts"]) == {"base"}
    assert "base" not in again["outputDefinitions"]["parameters"]
    with pytest.raises(UserError, match="an argument cannot be named output on Kubeflow; rename it"):
        _rendered(tmp_path, crowded, twice=True)


def test_a_step_to_run_anew_is_the_pages_default_too(tmp_path: Path) -> None:
    _, job, params = prepare("kubeflow", "text_classification", PLACE, tmp_path, fresh=("tune",))
    spec = next(yaml.safe_load_all(kubeflow.render(job, params)))
    assert spec["root"]["inputDefinitions"]["parameters"]["fresh"]["defaultValue"] == ["tune"]
    _, job, params = prepare("kubeflow", "text_classification", PLACE, tmp_path, fresh=("tun",))
    with pytest.raises(ParamsError, match="did you mean tune"):
        kubeflow.render(job, params)


def test_without_kfp_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kfp", None)
    with pytest.raises(UserError, match=r"kfp is not installed; pip install 'raypath\[kubeflow\]'"):
        _rendered(tmp_path)


def test_a_recurring_run_is_what_the_api_takes(tmp_path: Path) -> None:
    pipeline.kfp()
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2
    from kfp_server_api import V2beta1RecurringRun

    job, params = _planned(tmp_path)
    run = json.loads(schedule.render(job, "0 3 * * 5-7", "kubeflow", params))
    assert set(run) <= set(V2beta1RecurringRun.attribute_map)
    assert run["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 5,6,0"}}
    # As the server reads it.
    spec = json_format.ParseDict(run["pipeline_spec"]["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == "text-classification"
    json_format.ParseDict(run["pipeline_spec"]["platform_spec"], pipeline_spec_pb2.PlatformSpec())
    with pytest.raises(ParamsError, match="wanted 5"):
        schedule.render(job, "0 3 * *", "kubeflow", params)


@pytest.mark.parametrize(
    ("cron", "wanted"),
    [
        ("*/15 0-6 * jan mon,fri", "0 */15 0-6 * jan mon,fri"),
        ("0 3 * * 7", "0 0 3 * * 0"),
        ("0 3 * * fri-sun", "0 0 3 * * 5,6,0"),
        ("0 3 * * 1-7/3", "0 0 3 * * 1,4,0"),
        ("@daily", "@daily"),
    ],
)
def test_a_time_of_crontab_is_told_as_kubeflow_reads_it(cron: str, wanted: str) -> None:
    schedule.check(cron)
    assert kubeflow_api.with_seconds(cron) == wanted


# ---- what the containers do ------------------------------------------------------------------------------------------


def _settings(values: Mapping[str, Any], out: Path) -> str:
    """An ExecutorInput of the container that checks the settings."""
    asked = {"parameters": {"plan": {"outputFile": str(out)}}}
    return json.dumps({"inputs": {"parameterValues": {"run": "r1", **values}}, "outputs": asked})


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as it was, after a container has put its own into this process."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_a_pipeline_fits_its_code_by_steps_versions_and_edges() -> None:
    graph = load_workflow(FLOW).trace()
    first, *others = graph.nodes
    newer = replace(first, component=copy(first.component))
    newer.component.version += 1
    shapes = {
        pipeline.shape(each) for each in (graph, load_workflow(FLOW).trace(), replace(graph, nodes=(newer, *others)))
    }
    assert len(shapes) == 2


@pytest.mark.parametrize("key", ["a.b__c", "a_.b", "a._b"])
def test_a_setting_with_two_ways_back_is_no_parameter(key: str) -> None:
    with pytest.raises(UserError, match="cannot be a parameter of Kubeflow"):
        pipeline.parameter(key)
    assert pipeline.setting(pipeline.parameter("a.b_c")) == "a.b_c"


@pytest.mark.usefixtures("environment")
def test_settings_of_the_page_are_checked_before_anything_is_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shape = pipeline.shape(load_workflow(FLOW).trace())

    def said(workflow: str = FLOW, **values: Any) -> str:
        message = _settings(values, tmp_path / "plan")
        status = container.main(["settings", workflow, "--shape", shape, "--executor_input", message])
        assert (status == 0) == (tmp_path / "plan").exists()
        return capsys.readouterr().err if status == 2 else ""

    assert "RAYPATH_STORE is not set" in said()
    monkeypatch.setenv("RAYPATH_STORE", str(tmp_path / "store"))
    assert "setting finetune.epochs" in said(finetune__epochs=-1)
    assert "unknown setting finetune.epoch; did you mean" in said(finetune__epoch=1)
    assert "did you mean evaluate" in said(fresh=["evaluat"])
    assert "has other steps than this pipeline, with these settings or with this image; render it again" in said(
        twice=True
    )
    assert "this image lacks nowhere" in said("nowhere")
    assert "this image lacks tests.deploy.nothing:it" in said("tests.deploy.nothing:it")
    assert "this image lacks tests.deploy.kubeflow.kubeflow_flow:nothing" in said(
        "tests.deploy.kubeflow.kubeflow_flow:nothing"
    )
    assert said(finetune__epochs=3, finetune__metric="none", fresh=["read"]) == ""
    made = json.loads((tmp_path / "plan").read_text())
    assert (made["run"], made["fresh"], json.loads(made["settings"])["finetune"]["epochs"]) == ("r1", ["read"], 3)


@pytest.mark.usefixtures("environment")
def test_a_server_of_mlflow_that_is_away_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAYPATH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(single_step, "RETRIES", 0)
    assert container.main(["settings", FLOW, "--executor_input", _settings({}, tmp_path / "plan")]) == 1
    assert "MLflow does not answer at http://127.0.0.1:9; start it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The compiled pipeline of a small workflow, and a function that runs it with kfp's local runner."""
    folder = tmp_path_factory.mktemp("kubeflow")
    write_rows(folder / "data.csv", 100)
    tiny_bert(folder / "base")
    changes = {
        "kubeflow__store": str(folder / "store"), "kubeflow__claim": "shared", "kubeflow__tracking": "",
        "read__uri": str(folder / "data.csv"), "finetune__base": str(folder / "base"),
    }  # fmt: skip
    job, params = _planned(folder, FLOW, **changes)
    with local_runner(kubeflow.render(job, params), folder) as run:
        yield SimpleNamespace(folder=folder, job=job, run=run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*have no effect in the current local runner:UserWarning")
@pytest.mark.filterwarnings("ignore:You may be attemping to run a task:RuntimeWarning")
def test_the_pipeline_runs_container_by_container_and_its_records_are_everybodys(
    kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {node.name for node in kit.job.graph.nodes}
    assert kit.run() == dict.fromkeys(steps, False)
    assert kit.run() == dict.fromkeys(steps, True), "the second time every step is reused"
    assert 0.0 <= told(kit.folder, "evaluate", "metrics")["accuracy"] <= 1.0
    model, judged = told(kit.folder, "finetune", "output"), told(kit.folder, "evaluate", "output")
    assert (model["kind"], told(kit.folder, "split", "output")["kind"]) == ("Model", "Splits")
    assert Path(model["place"], "model.safetensors").is_file()
    assert told(kit.folder, "read", "output")["rows"] == 100
    # The same line on a laptop finds all of it under the same keys, and starts nothing.
    monkeypatch.setenv("RAYPATH_STORE", str(kit.folder / "store"))
    report, run, _ = run_graph(kit.job.graph, kit.folder / "laptop")
    assert {state.name: state.status for state in run.steps} == dict.fromkeys(steps, "reused")
    assert report.digest == judged["digest"]  # type: ignore[attr-defined]
    # A setting of the page reaches its step. What is made anew is the same as before, and so it ends there.
    assert kit.run(split__min_rows=1, fresh=["read"]) == {step: step not in ("read", "split") for step in steps}
