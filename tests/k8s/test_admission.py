"""Limits of RayJobs: the policy's expressions, evaluated on what Raypath makes and on what an attacker would."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypath.deploy.kubernetes.start_rayjob import copy_of
from tests.deploy.kubernetes.test_kuberay import NEEDED, WORKFLOWS, _rendered
from tests.k8s.manifests import documents, of, rendered

cel = pytest.importorskip("cel")
IMAGES = "raypath-rayjob-images"


@functools.cache
def _parsed(folder: str) -> list[dict[str, Any]]:
    """The documents of a folder, which takes a second to parse; not to be changed."""
    return documents(rendered(folder))


@functools.cache
def _compiled(expression: str) -> Any:
    return cel.compile(expression)


def _template(folder: str = "base") -> dict[str, Any]:
    return copy.deepcopy(of(_parsed(folder), "RayJob", "retrain"))


def _faults(job: dict[str, Any], folder: str = "base", policy: str = "raypath-rayjobs") -> list[str]:
    """Messages of the rules that reject a RayJob, as the API server evaluates them; an error is a rejection."""
    found = _parsed(folder)
    spec = of(found, "ValidatingAdmissionPolicy", policy)["spec"]
    context: dict[str, Any] = {"object": job, "variables": {}}
    if "paramKind" in spec:
        context["params"] = of(found, "RayJob", "retrain")
    try:
        for each in spec["variables"]:
            context["variables"][each["name"]] = _compiled(each["expression"]).execute(context)
    except Exception as error:  # noqa: BLE001 - whatever the error is, the API server rejects the object
        return [f"error in a variable: {error}"]
    return [rule["message"] for rule in spec["validations"] if not _holds(rule["expression"], context)]


def _holds(expression: str, context: dict[str, Any]) -> bool:
    try:
        return _compiled(expression).execute(context) is True
    except Exception:  # noqa: BLE001
        return False


@pytest.mark.parametrize("folder", ["base", "overlays/kind", "overlays/gpu-prod"])
def test_the_template_and_the_copies_of_the_schedule_pass(folder: str) -> None:
    template = _template(folder)
    copied = copy_of(template, "retrain-1-ray")
    assert _faults(template, folder) == _faults(copied, folder) == []
    assert _faults(copied, folder, IMAGES) == []


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_what_raypath_renders_passes(workflow: str, tmp_path: Path) -> None:
    for changes in ({}, {"kuberay__store": "s3://bucket/x"}, {"kuberay__gpus": "1"}):
        job = of(_rendered(tmp_path, workflow, **NEEDED.get(workflow, {}), **changes), "RayJob")
        assert _faults(job) == []
        # This is another image than the template's.
        assert _faults(job, policy=IMAGES)


def _head(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    return found


def _box(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _head(job)["spec"]["containers"][0]
    return found


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Set fields of the job's spec: `_set(a__b=1)`."""

    def change(job: dict[str, Any]) -> None:
        for path, value in values.items():
            *way, last = path.split("__")
            node = job["spec"]
            for name in way:
                node = node[name]
            node[last] = value

    return change


def _volume(volume: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda job: _head(job)["spec"]["volumes"].append({"name": "more", **volume})


def _pod(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda job: _head(job)["spec"].update(values)


def _container(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda job: _box(job).update(values)


def _env(name: str) -> list[dict[str, Any]]:
    return [{"name": "X", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]


ATTACKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "another cluster": _set(clusterSelector={"ray.io/cluster": "reviews"}),
    "the token of serving": _set(rayClusterSpec__authOptions={"mode": "token", "secretName": "raypath-ray-serving"}),
    "no token": _set(rayClusterSpec__authOptions={"mode": "disabled"}),
    "an autoscaler": _set(rayClusterSpec__enableInTreeAutoscaling=True),
    "state in Redis": _set(rayClusterSpec__gcsFaultToleranceOptions={"redisAddress": "redis:6379"}),
    "a runtime environment": _set(runtimeEnvYAML="pip: [evil]"),
    "no submitter of its own": lambda job: job["spec"].pop("submitterPodTemplate"),
    "a load balancer": _set(rayClusterSpec__headGroupSpec__serviceType="LoadBalancer"),
    "an ingress": _set(rayClusterSpec__headGroupSpec__enableIngress=True),
    "a service of its own": _set(rayClusterSpec__headGroupSpec__headService={"spec": {"type": "NodePort"}}),
    "an account with rights": _pod(serviceAccountName="raypath-scheduler"),
    "the default account": lambda job: _head(job)["spec"].pop("serviceAccountName"),
    "a token for the API": _pod(automountServiceAccountToken=True),
    "the host's network": _pod(hostNetwork=True),
    "the host's processes": _pod(hostPID=True),
    "the host's files": _volume({"hostPath": {"path": "/"}}),
    "the endpoint's keys": _volume({"secret": {"secretName": "raypath-access"}}),
    "a projected token": _volume({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
    "the endpoint's usage": _volume({"persistentVolumeClaim": {"claimName": "raypath-usage"}}),
    "a privileged container": _container(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
    "more privileges": _container(securityContext={"allowPrivilegeEscalation": True}),
    "no security context": lambda job: _box(job).pop("securityContext"),
    "the password of Redis": _container(env=_env("raypath-redis")),
    "every key of a Secret": _container(envFrom=[{"secretRef": {"name": "raypath-ray-serving"}}]),
    "the label of serving": lambda job: _head(job)["metadata"]["labels"].update({"raypath.io/role": "serving"}),
    "the label of MLflow": lambda job: _head(job)["metadata"]["labels"].update({"app.kubernetes.io/name": "mlflow"}),
    "the label of a gateway": lambda job: _head(job)["metadata"]["labels"].update(
        {"gateway.networking.k8s.io/gateway-name": "x"}
    ),
    "a label of a group": _set(rayClusterSpec__headGroupSpec__labels={"raypath.io/role": "serving"}),
    "an init container": _pod(initContainers=[{"name": "x", "image": "evil", "securityContext": {"privileged": True}}]),
    "a sidecar": lambda job: _head(job)["spec"]["containers"].append({"name": "x", "image": "evil"}),
    "another role of the submitter": lambda job: job["spec"]["submitterPodTemplate"]["metadata"]["labels"].update(
        {"raypath.io/role": "serving"}
    ),
    "a worker's account": lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"].update(
        serviceAccountName="raypath-head"
    ),
    "a submitter's Secret": lambda job: job["spec"]["submitterPodTemplate"]["spec"]["containers"][0].update(
        env=_env("raypath-access")
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_rayjob_that_would_reach_further_is_rejected(attack: str) -> None:
    job = _template()
    ATTACKS[attack](job)
    assert _faults(job)


@pytest.mark.parametrize("where", ["head", "worker", "submitter", "init"])
def test_who_may_only_create_uses_the_image_of_the_template_or_a_listed_one(where: str) -> None:
    job = _template()
    [group] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pods = {"head": _head(job), "worker": group["template"], "submitter": job["spec"]["submitterPodTemplate"]}
    if where == "init":
        _head(job)["spec"]["initContainers"] = [{**_box(job), "image": "registry.example.com/evil"}]
    else:
        pods[where]["spec"]["containers"][0]["image"] = "registry.example.com/evil"
    assert _faults(job, policy=IMAGES)


def test_policies_deny_in_this_namespace_and_the_template_is_a_parameter() -> None:
    bindings = [each["spec"] for each in _parsed("base") if each["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {each["policyName"] for each in bindings} == {"raypath-rayjobs", IMAGES}
    for each in bindings:
        assert each["validationActions"] == ["Deny"]
        assert each["matchResources"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "raypath"}
    # An account that may delete the template gains nothing by it.
    [parameter] = [each["paramRef"] for each in bindings if "paramRef" in each]
    assert parameter == {"name": "retrain", "namespace": "raypath", "parameterNotFoundAction": "Deny"}
    condition = of(_parsed("base"), "ValidatingAdmissionPolicy", IMAGES)["spec"]["matchConditions"][0]["expression"]
    assert condition.startswith("!authorizer.")
    assert "check('update')" in condition
