"""The README's commands on a real cluster: from nothing to an endpoint that scales, moves and is never away.

Heavy: half an hour. It takes a cluster that may be thrown away, with KubeRay and a network plugin that keeps to
policies, whose nodes hold the image raypath:dev:

    RAYPATH_TEST_CLUSTER    the kubeconfig of it; it has no namespace `raypath` yet, and has none in the end
    RAYPATH_TEST_KEEP       set, it has one in the end
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components.registry.signing.keys import PRIVATE
from raypath.deploy.execution.run_history import load_runs
from tests.k8s.cluster import IMAGE, ROOT, Clients, Kube, ready

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3600)]
CLIENTS = "raypath-clients"
PROMOTE = """
import mlflow, os
from raypath.components.registry import aliases, audit
client, uri = mlflow.MlflowClient(), os.environ["MLFLOW_TRACKING_URI"]
old = client.get_model_version_by_alias("reviews", "champion")
new = client.create_model_version("reviews", old.source, old.run_id, old.tags, model_id=old.source.split("/")[-1])
audit.sign(uri, "reviews", int(new.version), None)
aliases.promote(uri, "reviews", int(new.version))
print("now", new.version)
"""
STATUS = """
import json, os, urllib.request
headers = {"Authorization": "Bearer " + os.environ["RAY_AUTH_TOKEN"]}
request = urllib.request.Request("http://localhost:8265/api/serve/applications/", headers=headers)
print(json.load(urllib.request.urlopen(request))["applications"]["reviews"]["status"])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def kube(home: Path) -> Iterator[Kube]:
    """The cluster, with the overlay `kind` in it."""
    if not (config := os.environ.get("RAYPATH_TEST_CLUSTER")):
        pytest.skip("RAYPATH_TEST_CLUSTER names no cluster")
    kube = Kube(config)
    assert "NotFound" in kube("get", "namespace", "raypath", check=False), "the cluster is in use"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**kube.environment, "RAYPATH_HOME": str(home), "PATH": path}
    try:
        made = subprocess.run(
            [ROOT / "k8s" / "secrets.sh"], env=environment, capture_output=True, text=True, check=True
        )
        (home / "key").write_text(next(line for line in made.stdout.splitlines() if line.startswith("rp_")))
        kube("apply", "-k", "k8s/overlays/kind")
        yield kube
    finally:
        if "RAYPATH_TEST_KEEP" not in os.environ:
            # While Redis is there: KubeRay takes away what a head wrote into it.
            kube("delete", "rayservices,rayjobs", "--all", seconds=600.0)
            kube.until(lambda: kube("get", "rayclusters", "-o", "name") == "", 300, "the end of all clusters")
            kube("delete", "namespace", "raypath", CLIENTS, "--ignore-not-found", seconds=600.0)


@pytest.fixture(scope="module")
def endpoint(kube: Kube) -> Kube:
    """The cluster once a first retraining was started by hand, and its model is in service."""
    kube("create", "job", "first", "--from=cronjob/retrain")
    form = "jsonpath={.status.jobDeploymentStatus}"
    end = kube.until(
        lambda: (
            (said := kube("get", "rayjob", "first-ray", "-o", form, check=False)) in ("Complete", "Failed") and said
        ),
        2400,
        "the first retraining",
    )
    assert end == "Complete", kube("logs", "job/first-ray", "--tail=20")
    kube("wait", "rayservice/reviews", "--for=condition=Ready", "--timeout=600s", seconds=630.0)
    return kube


@pytest.fixture(scope="module")
def clients(endpoint: Kube, home: Path) -> Clients:
    return Clients(endpoint, CLIENTS, (home / "key").read_text())


def test_who_has_no_key_or_no_leave_gets_no_answer(clients: Clients, endpoint: Kube) -> None:
    clients.start(1, 0.1)
    ask = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://reviews-serve-svc.raypath:8000/" + sys.argv[1], b"{}", timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(type(error).__name__)
"""
    assert endpoint("exec", "load", "--", "python", "-c", ask, "predict", namespace=CLIENTS) == "401"
    words = ["run", "stranger", f"--image={IMAGE}", "--image-pull-policy=Never", "--restart=Never", "--rm", "--attach"]
    said = endpoint(*words, "--quiet", "--command", "--", "python", "-c", ask, "healthz", namespace="default")
    assert said.splitlines()[0] in ("URLError", "TimeoutError")


def test_pods_are_nobody_and_hold_no_token_of_the_cluster(endpoint: Kube) -> None:
    look = "id -u; ls /var/run/secrets/kubernetes.io/serviceaccount 2>&1 | tail -1; touch /app/x 2>&1; true"
    for pod in [*_heads(endpoint), *_workers(endpoint)]:
        said = endpoint("exec", _name(pod), "-c", "ray", "--", "sh", "-c", look)
        assert said.splitlines()[0] == "1000", said
        assert "No such file" in said.splitlines()[1], said
        assert "Read-only file system" in said.splitlines()[2], said


def test_a_promotion_needs_no_apply(clients: Clients, endpoint: Kube, home: Path) -> None:
    clients.start(4, 0.05)
    (pod,) = _heads(endpoint)
    key = next((home / "signing").glob("*.key")).read_text()
    said = endpoint("exec", _name(pod), "-c", "ray", "--", "env", f"{PRIVATE}={key}", "python", "-c", PROMOTE)
    version = f"version {said.split()[-1]}"
    endpoint.until(lambda: clients.seen().get(version, 0) > 50, 120, f"answers of {version}")


def test_the_head_is_killed_and_the_replicas_go_on(clients: Clients, endpoint: Kube) -> None:
    clients.start(4, 0.05)
    (old,) = _heads(endpoint)
    endpoint("delete", "pod", _name(old), "--grace-period=0", "--force")
    before = sum(clients.seen().values())
    new = endpoint.until(lambda: [p for p in _heads(endpoint) if ready(p) and _name(p) != _name(old)], 600, "a head")
    assert sum(clients.seen().values()) > before + 100, "answers came meanwhile"
    words = ["exec", _name(new[0]), "-c", "ray", "--", "python", "-c", STATUS]
    endpoint.until(lambda: endpoint(*words, check=False) == "RUNNING", 300, "the application on the new head")


def test_the_only_replica_is_not_drained(endpoint: Kube) -> None:
    (pod,) = _workers(endpoint)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": _name(pod), "namespace": "raypath"}}
    path = f"/api/v1/namespaces/raypath/pods/{_name(pod)}/eviction"
    assert "disruption budget" in endpoint("create", "--raw", path, "-f", "-", given=body, check=False)


def test_an_upgrade_is_without_a_pause(clients: Clients, endpoint: Kube) -> None:
    """Another size makes a second cluster, which takes over."""
    clients.start(4, 0.05)
    was = _active(endpoint)
    path = "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec/containers/0/resources/limits/memory"
    patch = json.dumps([{"op": "replace", "path": path, "value": "4500Mi"}])
    endpoint("patch", "rayservice", "reviews", "--type=json", "-p", patch)
    endpoint.until(lambda: _active(endpoint) not in ("", was), 900, "the other cluster")
    endpoint.until(lambda: not endpoint.pods(f"ray.io/cluster={was}"), 600, "the end of the old one")
    before = sum(clients.seen().values())
    endpoint.until(lambda: sum(clients.seen().values()) > before + 100, 60, "answers of the new cluster")


def test_a_training_goes_on_after_its_node_is_gone(endpoint: Kube, home: Path) -> None:
    """Submitted and followed from here, as a user does."""
    settings = ["tune.trials=1", "tune.rows=64", "finetune.checkpoint_seconds=5", "seed=1", f"kuberay.image={IMAGE}"]
    settings += ["kuberay.loaded=true", "kuberay.name=killed", "kuberay.endpoint=false", "kuberay.cpus=1"]
    settings += ["kuberay.head_cpus=1", "kuberay.memory=3Gi", "kuberay.head_memory=3Gi"]
    words = [word for setting in settings for word in ("-s", setting)]
    command = [str(Path(sys.executable).parent / "raypath"), "run", "text_classification", "--on", "kuberay", *words]
    environment = {**endpoint.environment, "RAYPATH_HOME": str(home)}
    with (home / "said").open("w") as said:
        run = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
    try:
        pods = "raypath.io/role=submitter"
        endpoint.until(lambda: "rows/s" in endpoint("logs", "-l", pods, "--tail=3", check=False), 900, "a training")
        [node] = endpoint.pods("ray.io/node-type=worker,raypath.io/role=training")
        endpoint("delete", "pod", _name(node), "--grace-period=0", "--force")
        status = run.wait(1800)
    finally:
        run.kill()
        run.wait()
    assert status == 0, (home / "said").read_text()[-2000:]
    attempts = {step.name: step.attempts for step in load_runs(home)[-1].steps}
    assert (attempts["finetune"], attempts["preprocess"]) == (2, 1), attempts


def test_nodes_come_with_the_load_and_go_with_it(clients: Clients, endpoint: Kube) -> None:
    clients.start(64, 0.0)
    endpoint.until(lambda: len([p for p in _workers(endpoint) if ready(p)]) >= 2, 900, "a second node")
    clients.seen()
    clients.start(1, 0.5)
    endpoint.until(lambda: len(_workers(endpoint)) == 1, 1500, "one node")
    clients.seen()


def _heads(kube: Kube) -> list[dict[str, Any]]:
    return kube.pods("ray.io/node-type=head,raypath.io/role=serving")


def _workers(kube: Kube) -> list[dict[str, Any]]:
    return kube.pods("ray.io/node-type=worker,raypath.io/role=serving")


def _name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def _active(kube: Kube) -> str:
    """The cluster that answers."""
    return kube("get", "rayservice", "reviews", "-o", "jsonpath={.status.activeServiceStatus.rayClusterName}")
