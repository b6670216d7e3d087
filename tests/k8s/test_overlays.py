"""Every overlay, rendered: accepted by the strict validator, restricted, sized, probed, closed, without a secret."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypath.deploy.local import mlflow_server
from raypath.deploy.triggers import webhook
from tests.k8s.manifests import K8S, ROOT, check_pod, documents, of, pods, rendered, validate

FOLDERS = ["base", "overlays/kind", "overlays/gpu-prod"]
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())


def test_the_validator_accepts_every_document() -> None:
    """In one go: it takes some seconds to read its schemas."""
    every = [rendered(folder) for folder in FOLDERS]
    count = sum(len(documents(text)) for text in every)
    assert validate("\n---\n".join(every)) == f"{count} passed, 0 failed"


def test_every_component_is_used_or_accepted_with_the_base(tmp_path: Path) -> None:
    used = yaml.safe_load((K8S / "overlays" / "gpu-prod" / "kustomization.yaml").read_text())["components"]
    rest = {*COMPONENTS} - {Path(each).name for each in used}
    assert rest == {"incremental-upgrade", "kubeflow", "webhook"}
    found = documents(_with_base(tmp_path, *sorted(rest)))
    assert of(found, "RayService")["spec"]["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"
    text = "\n---\n".join(map(yaml.safe_dump, found))
    assert validate(text) == f"{len(found)} passed, 0 failed"


def _with_base(tmp_path: Path, *components: str) -> str:
    """The base with components, rendered; a folder of kustomize is named relative to the other."""
    there = os.path.relpath(K8S, tmp_path.resolve())
    parts = {"resources": [f"{there}/base"], "components": [f"{there}/components/{name}" for name in components]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    return rendered(str(tmp_path))


def test_an_alias_starts_retraining_through_the_webhook(tmp_path: Path) -> None:
    """The receiver's arguments are valid, MLflow may reach it, and both refer to the secret by name only."""
    found = documents(_with_base(tmp_path, "webhook"))
    deployment, service = of(found, "Deployment", "webhook"), of(found, "Service", "webhook")
    [pod] = pods(deployment)
    check_pod(pod)
    box = pod["containers"][0]
    args = webhook.parser().parse_args(box["command"][3:])
    assert args.announce == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert (args.host, args.port) == ("0.0.0.0", box["ports"][0]["containerPort"])
    assert args.alias != "champion", "retraining moves it, and would start itself"
    assert of(found, "RayJob", "retrain")["spec"]["suspend"] is True
    assert "raypath.deploy.kubernetes.start_rayjob retrain" in args.command[-1]
    [mlflow] = pods(of(found, "Deployment", "mlflow"))
    env = {each["name"]: each for each in mlflow["containers"][0]["env"]}
    assert mlflow_server.ENVIRONMENT.items() >= {
        (name, each["value"]) for name, each in env.items() if name.startswith("MLFLOW_WEBHOOK_ALLOW")
    }
    assert env[mlflow_server.WEBHOOK_KEY]["valueFrom"]["secretKeyRef"]["name"] == "raypath-webhook"
    [rule] = of(found, "NetworkPolicy", "mlflow-webhook")["spec"]["egress"]
    assert rule["to"] == [{"podSelector": {"matchLabels": service["spec"]["selector"]}}]


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_restricted_sized_and_hold_no_secret(folder: str) -> None:
    found = documents(rendered(folder))
    seen = [pod for document in found for pod in pods(document)]
    assert len(seen) == 8  # head and worker of service and job, submitter, MLflow, Redis, the schedule
    for pod in seen:
        check_pod(pod)
    assert not [each for each in found if each["kind"] == "Secret"]
    assert all(not each["automountServiceAccountToken"] for each in found if each["kind"] == "ServiceAccount")


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_runs_for_long_is_probed(folder: str) -> None:
    found = documents(rendered(folder))
    long = [of(found, "RayService"), of(found, "Deployment"), of(found, "StatefulSet"), of(found, "RayJob")]
    for document in long:
        for pod in pods(document):
            box = pod["containers"][0]
            if box["name"] != "submitter":
                assert {"readinessProbe", "livenessProbe"} <= set(box), document["kind"]
    worker = of(found, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    probe = worker["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"]
    assert probe == ["ray-healthy", "worker", "serve"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_ray_asks_for_a_token_and_two_containers_alone_have_one_of_kubernetes(folder: str) -> None:
    found = documents(rendered(folder))
    service, job = of(found, "RayService")["spec"]["rayClusterConfig"], of(found, "RayJob")["spec"]["rayClusterSpec"]
    for cluster, role in ((service, "serving"), (job, "training")):
        assert cluster["authOptions"] == {"mode": "token", "secretName": f"raypath-ray-{role}"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert service["autoscalerOptions"]["version"] == "v2"
    assert service["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["name"] == "raypath-redis"
    mounts = [
        (document["kind"], box["name"])
        for document in found
        for pod in pods(document)
        for box in pod["containers"]
        for mount in box.get("volumeMounts", [])
        if "serviceaccount" in mount["mountPath"]
    ]
    assert mounts == [("CronJob", "start")]
    assert "serviceaccount" in service["autoscalerOptions"]["volumeMounts"][0]["mountPath"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_traffic_is_denied_but_for_what_is_named(folder: str) -> None:
    found = [each["spec"] for each in documents(rendered(folder)) if each["kind"] == "NetworkPolicy"]
    assert sum(each["podSelector"] == {} for each in found) == 1
    for policy in found:
        assert {} not in policy.get("ingress", []) + policy.get("egress", []), "an empty rule lets everything through"
        for rule in policy.get("egress", []):
            blocks = [to["ipBlock"] for to in rule["to"] if "ipBlock" in to]
            assert all(block["except"] == ["169.254.0.0/16"] for block in blocks)
            assert not blocks or rule["ports"]


Peer = dict[str, str]
SERVING, TRAINING, OPERATOR = ({"raypath.io/role": "serving"}, {"raypath.io/role": "training"},
                               {"app.kubernetes.io/component": "kuberay-operator"})  # fmt: skip


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    for each in selector.get("matchExpressions", []):
        there = each["key"] in labels
        wanted &= there if each["operator"] == "Exists" else labels.get(each["key"]) in each["values"]
    return bool(wanted)


def _passes(policies: list[dict[str, Any]], one: Peer, other: Peer, port: int) -> bool:
    """True where policies let a pod reach a pod of the same namespace, at both ends."""
    ends = [("egress", "to", one, other), ("ingress", "from", other, one)]
    return all(
        any(
            _matches(peer["podSelector"], there)
            for policy in policies
            if _matches(policy["podSelector"], here)
            for rule in policy.get(way, [])
            if port in [each["port"] for each in rule.get("ports", [{"port": port}])]
            for peer in rule[word]
            if "podSelector" in peer and "namespaceSelector" not in peer
        )
        for way, word, here, there in ends
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_training_and_serving_do_not_reach_each_other(folder: str) -> None:
    """Code that trains reaches the endpoint's port alone: no head, no Redis, and not the world."""
    found = [each["spec"] for each in documents(rendered(folder)) if each["kind"] == "NetworkPolicy"]
    ray = {"ray.io/is-ray-node": "yes", "app.kubernetes.io/name": "kuberay"}
    kinds = [(role, kind) for role in (SERVING, TRAINING) for kind in ("head", "worker")]
    nodes = {(role["raypath.io/role"], kind): {**ray, **role, "ray.io/node-type": kind} for role, kind in kinds}
    mlflow, redis = {"app.kubernetes.io/name": "mlflow"}, {"app.kubernetes.io/name": "redis"}
    for kind in ("head", "worker"):
        training, serving = nodes["training", kind], nodes["serving", kind]
        for other in ("head", "worker"):
            for port in (6379, 8265, 10001, 10002, 52365, 8080, 8076):
                assert _passes(found, training, nodes["training", other], port)
                assert _passes(found, serving, nodes["serving", other], port)
                assert not _passes(found, training, nodes["serving", other], port)
                assert not _passes(found, serving, nodes["training", other], port)
            assert _passes(found, training, nodes["serving", other], 8000)
            assert not _passes(found, serving, nodes["training", other], 8000)
        assert _passes(found, training, mlflow, 5000)
        assert _passes(found, serving, mlflow, 5000)
        assert not _passes(found, training, redis, 6379)
        assert _passes(found, serving, redis, 6379) is (kind == "head")
        # Beyond the namespace: the API for the endpoint's head, and object storage where the overlay uses it.
        storage = {443} if folder == "overlays/gpu-prod" else set()
        assert _outside(found, training) == storage
        assert _outside(found, serving) == ({443, 6443} if kind == "head" else storage)
    submitter = {"raypath.io/role": "submitter"}
    assert _passes(found, submitter, nodes["training", "head"], 8265)
    assert not _passes(found, submitter, nodes["serving", "head"], 8265)
    assert not _passes(found, submitter, mlflow, 5000)


def _outside(policies: list[dict[str, Any]], labels: Peer) -> set[int]:
    """Ports that a pod reaches at any address."""
    own = [policy for policy in policies if _matches(policy["podSelector"], labels)]
    rules = [rule for policy in own for rule in policy.get("egress", [])]
    return {each["port"] for rule in rules if any("ipBlock" in peer for peer in rule["to"]) for each in rule["ports"]}


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_the_operator_in_its_own_namespace_reaches_heads_from_outside(folder: str) -> None:
    found = [each["spec"] for each in documents(rendered(folder)) if each["kind"] == "NetworkPolicy"]
    for policy in found:
        for rule in [*policy.get("ingress", []), *policy.get("egress", [])]:
            for peer in [*rule.get("from", []), *rule.get("to", [])]:
                assert peer.get("namespaceSelector", {"x": 1}), "an empty selector is every namespace"
                if peer.get("podSelector") == {"matchLabels": OPERATOR}:
                    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kuberay"}}


@pytest.mark.parametrize("folder", FOLDERS)
def test_mlflow_asks_for_a_token_that_ray_pods_have_from_a_secret(folder: str) -> None:
    found = documents(rendered(folder))
    [mlflow] = pods(of(found, "Deployment", "mlflow"))
    [box] = mlflow["containers"]
    assert box["command"][:4] == ["python", "-m", "raypath.deploy.kubernetes.mlflow_server", "serve"]
    token = next(volume["secret"] for volume in mlflow["volumes"] if volume["name"] == "token")
    assert token["secretName"] == "raypath-mlflow"
    assert token["items"] == [{"key": "MLFLOW_TRACKING_TOKEN", "path": "token"}]
    assert {"name": "token", "mountPath": "/etc/raypath/mlflow", "readOnly": True} in box["volumeMounts"]
    for document in (of(found, "RayService"), of(found, "RayJob")):
        for pod in pods(document):
            [box] = pod["containers"]
            has = {"secretRef": {"name": "raypath-mlflow"}} in box.get("envFrom", [])
            assert has is (box["name"] == "ray")


def test_clients_of_gpu_prod_come_through_tls_and_the_gateways_pods_are_let_through() -> None:
    """Those pods are made in this namespace, where nothing passes by default."""
    found = documents(rendered("overlays/gpu-prod"))
    assert [each["protocol"] for each in of(found, "Gateway")["spec"]["listeners"]] == ["HTTPS"]
    assert of(found, "RayService")["spec"]["upgradeStrategy"] == {"type": "NewCluster"}
    label = [{"key": "gateway.networking.k8s.io/gateway-name", "operator": "Exists"}]
    own = of(found, "NetworkPolicy", "gateway")["spec"]
    assert own["podSelector"] == {"matchExpressions": label}
    assert {port["port"] for rule in own["ingress"] for port in rule["ports"]} == {443, 15021}
    assert {"protocol": "TCP", "port": 8000} in own["egress"][0]["ports"]
    [asked] = of(found, "NetworkPolicy", "gateway-clients")["spec"]["ingress"]
    assert asked["from"] == [{"podSelector": {"matchExpressions": label}}]


def test_budgets_of_what_kuberay_owns_are_numbers_that_stay() -> None:
    """RayCluster has no scale: with maxUnavailable, or a share, Kubernetes cannot count and lets nothing go."""
    found = documents(rendered("base"))
    budgets = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "PodDisruptionBudget"}
    for spec in budgets.values():
        if "raypath.io/role" in spec["selector"]["matchLabels"]:
            assert "maxUnavailable" not in spec
            assert isinstance(spec["minAvailable"], int)
    assert budgets["serving"]["minAvailable"] == 1
    job = of(found, "RayJob")["spec"]["rayClusterSpec"]
    assert budgets["training"]["minAvailable"] > 1 + job["workerGroupSpecs"][0]["maxReplicas"]


def test_ray_and_mlflow_reach_object_storage_in_gpu_prod() -> None:
    policy = of(documents(rendered("overlays/gpu-prod")), "NetworkPolicy", "object-storage")["spec"]
    [names] = policy["podSelector"]["matchExpressions"]
    assert names == {"key": "app.kubernetes.io/name", "operator": "In", "values": ["kuberay", "mlflow"]}
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [443]


def test_a_failed_job_is_seen_where_kuberay_tells_of_it() -> None:
    """The gauge is 1 as long as the job is there: it never increases."""
    found = documents(rendered("overlays/gpu-prod"))
    rules = [rule for group in of(found, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    [failed] = [rule["expr"] for rule in rules if rule["alert"] == "RaypathJobFailed"]
    assert failed == 'kuberay_job_deployment_status{deployment_status="Failed"} == 1'
    spec = of(found, "PodMonitor", "kuberay")["spec"]
    assert spec["namespaceSelector"] == {"matchNames": ["kuberay"]}


def test_images_are_named_by_digest_or_never_pulled() -> None:
    for pod in (p for d in documents(rendered("overlays/gpu-prod")) for p in pods(d)):
        assert all(re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", box["image"]) for box in pod["containers"])
    for pod in (p for d in documents(rendered("overlays/kind")) for p in pods(d)):
        assert all(box["imagePullPolicy"] == "Never" for box in pod["containers"])


def test_the_gpu_overlay_has_gpus_postgres_and_object_storage() -> None:
    found = documents(rendered("overlays/gpu-prod"))
    groups = [
        of(found, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0],
        of(found, "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0],
    ]
    for group, gpus in zip(groups, ("1", "2"), strict=True):
        sizes = group["template"]["spec"]["containers"][0]["resources"]
        assert sizes["requests"]["nvidia.com/gpu"] == sizes["limits"]["nvidia.com/gpu"] == gpus
        assert group["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    env = {each["name"]: each for each in next(pods(of(found, "Deployment")))["containers"][0]["env"]}
    reference = env["MLFLOW_BACKEND_STORE_URI"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "raypath-postgres", "key": "uri"}
    assert "value" not in env["MLFLOW_BACKEND_STORE_URI"]
    assert of(found, "ConfigMap", "raypath-settings")["data"]["RAYPATH_STORE"].startswith("s3://")
    claims = {each["metadata"]["name"] for each in found if each["kind"] == "PersistentVolumeClaim"}
    assert claims == {"raypath-usage", "redis"}
    assert "raypath-store" not in json.dumps([each for each in found if each["kind"].startswith("Ray")])
    assert "queue-name" not in json.dumps(of(found, "RayJob")["metadata"]), "Kueue would start the template"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_service_takes_the_settings_of_the_laptop(folder: str) -> None:
    """The builder accepts serveConfigV2, and nodes have the resources that a replica reserves."""
    from raypath.components.core.params import flatten
    from raypath.deploy.kubernetes.serve_app import ServiceParams

    spec = of(documents(rendered(folder)), "RayService")["spec"]
    application = yaml.safe_load(spec["serveConfigV2"])["applications"][0]
    assert application["import_path"] == "raypath.deploy.kubernetes.serve_app:build"
    params = ServiceParams().override(dict(flatten(application["args"])))
    assert params.predictions.startswith(f"{params.usage}/")
    group = spec["rayClusterConfig"]["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"]) == (params.serve.replicas, params.serve.max_replicas)
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert params.serve.cpus <= float(limits["cpu"])
    assert params.serve.gpus <= float(limits.get("nvidia.com/gpu", 0))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_training_workers_fit_the_nodes(folder: str) -> None:
    found = documents(rendered(folder))
    spec = of(found, "RayJob")["spec"]
    workers = int((re.findall(r"finetune.workers=(\d+)", spec["entrypoint"]) or ["1"])[0])
    group = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    box = group["template"]["spec"]["containers"][0]
    home = {each["name"]: each["value"] for each in box.get("env", [])}.get("RAYPATH_HOME")
    store = of(found, "ConfigMap", "raypath-settings")["data"]["RAYPATH_STORE"]
    assert home == (store if store.startswith("/") else None)
    limits = box["resources"]["limits"]
    room = int(limits.get("nvidia.com/gpu", limits["cpu"])) * group["replicas"]
    assert workers <= room


def test_mlflow_answers_to_the_names_it_has_here() -> None:
    box = next(pods(of(documents(rendered("base")), "Deployment")))["containers"][0]
    allowed = next(each for each in box["env"] if each["name"] == "MLFLOW_SERVER_ALLOWED_HOSTS")["value"].split(",")
    assert {"mlflow:5000", "mlflow.raypath.svc.cluster.local:5000"} <= set(allowed)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert box[probe]["httpGet"]["httpHeaders"][0]["value"] in allowed


def test_the_readme_takes_at_most_eight_commands_each_explained() -> None:
    text = (K8S / "README.md").read_text()
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0].strip().splitlines()
    explained = re.findall(r"^(\d)\. ", text, re.MULTILINE)
    assert len(commands) <= 8
    assert explained == [str(number + 1) for number in range(len(commands))]
    for command in commands:
        for path in re.findall(r"(?:deploy|k8s)/[\w./-]+", command):
            assert (ROOT / path).exists(), path


def test_every_secret_that_is_referred_to_is_in_the_readme() -> None:
    told = set(re.findall(r"^\| `(raypath-[a-z-]+)`", (K8S / "README.md").read_text(), re.MULTILINE))
    referred: set[str] = set()
    for folder in FOLDERS:
        for document in documents(rendered(folder)):
            text = json.dumps(document)
            referred |= set(re.findall(r'"secretName": "([^"]+)"', text))
            referred |= set(re.findall(r'"certificateRefs": \[\{"name": "([^"]+)"', text))
            referred |= set(re.findall(r'"secret(?:KeyRef|Ref)": \{[^}]*"name": "([^"]+)"', text))
    assert referred == told - {"raypath-webhook"}


def test_what_gpu_prod_needs_and_every_component_are_in_the_readme() -> None:
    text = (K8S / "README.md").read_text()
    assert {*COMPONENTS} == set(re.findall(r"^\| `components/([a-z-]+)` \|", text, re.MULTILINE))
    needed = text.partition("## gpu-prod")[2].partition("\n## ")[0]
    for what in ("nvidia.com/gpu", "Istio", "Kueue", "KEDA", "Prometheus Operator", "Postgres", "ReadWriteMany"):
        assert what in needed


def _dockerfile() -> str:
    return (ROOT / "deploy" / "image" / "Dockerfile").read_text()


def test_the_image_is_not_root_and_made_by_the_lock() -> None:
    from importlib.metadata import version

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    text = _dockerfile()
    assert re.search(r"^ARG BASE=\S+", text, re.MULTILINE)
    assert text.rindex("USER 1000:1000") > text.rindex("RUN ")
    assert "HEALTHCHECK" in text
    assert "--require-hashes" in text
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"]
    extras = re.findall(r"--extra ([\w-]+)", re.sub(r"\n#", "", text[text.index("uv pip compile") :]))
    assert {"s3", "oidc", "he", "dp"} <= set(extras)
    more = [line for extra in extras for line in project["optional-dependencies"][extra]]
    for variant in ("cpu", "cuda"):
        lock = (ROOT / "deploy" / "image" / f"requirements-{variant}.txt").read_text()
        pins: dict[str, Any] = dict(re.findall(r"^([\w.-]+)==(\S+) \\$", lock, re.MULTILINE))
        for line in map(Requirement, [*wanted, *more]):
            assert line.specifier.contains(pins[line.name].split("+")[0]), f"{line} in the lock of {variant}"
        assert ("nvidia-cublas" in pins) == (variant == "cuda")
        ray = of(documents((K8S / "base" / "rayservice.yaml").read_text()), "RayService")
        assert ray["spec"]["rayClusterConfig"]["rayVersion"] == pins["ray"]
    assert SpecifierSet(">=2.60").contains(version("ray"))
