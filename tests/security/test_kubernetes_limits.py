"""RayJobs that reach further by a field of KubeRay's or of a pod that the policy did not name; who has the keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypath.deploy.kubernetes.start_rayjob import copy_of
from tests.k8s.manifests import VALIDATE, documents, of, rendered
from tests.k8s.test_admission import IMAGES, _faults, _head, _pod, _set, _template

CLUSTER = "rayClusterSpec__"
COLLECTOR = {
    "image": "registry.example.com/evil",
    "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "raypath-access", "key": "pepper"}}}],
}


def _annotation(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda job: _head(job)["metadata"].update(annotations={name: "x"})


ATTACKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a container with the endpoint's pepper, which KubeRay adds": _set(
        **{f"{CLUSTER}historyServerOptions": {"collectorOptions": COLLECTOR}}
    ),
    "traffic to any address": _set(**{f"{CLUSTER}networkPolicy": {"head": {"egressRules": [{}]}}}),
    "certificates": _set(**{f"{CLUSTER}tlsOptions": {"enabled": True}}),
    "tokens of Kubernetes for Ray": _set(**{f"{CLUSTER}authOptions__enableK8sTokenAuth": True}),
    "a name in DNS": _set(**{f"{CLUSTER}headServiceAnnotations": {"external-dns.alpha.kubernetes.io/hostname": "x"}}),
    "an ingress with a certificate": _set(**{f"{CLUSTER}headGroupSpec__ingressOptions": {"host": "x"}}),
    "state in Redis, by an annotation": lambda job: job["metadata"].update(annotations={"ray.io/ft-enabled": "true"}),
    "another network": _annotation("k8s.v1.cni.cncf.io/networks"),
    "a way around a mesh": _annotation("traffic.sidecar.istio.io/excludeOutboundPorts"),
    "a node": _pod(nodeName="control-plane"),
    "a priority above all": _pod(priorityClassName="system-node-critical"),
    "a container for debugging": _pod(ephemeralContainers=[{"name": "x", "image": "registry.example.com/evil"}]),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_field_that_leads_further_is_rejected(attack: str) -> None:
    job = _template()
    ATTACKS[attack](job)
    assert _faults(job)


def test_annotations_of_kueue_pass() -> None:
    job = _template()
    _head(job)["metadata"]["annotations"] = {"kueue.x-k8s.io/podset-required-topology": "rack"}
    assert _faults(job) == []


def test_who_may_only_create_cannot_replace_the_rayjob_that_names_the_images() -> None:
    """A request that is admitted while `retrain` exists is stored after its deletion, with images of its own."""
    job = _template()
    job["metadata"]["annotations"] = {"raypath.io/images": "registry.example.com/evil"}
    assert _faults(job, policy=IMAGES)
    assert _faults(copy_of(job, "retrain-2-ray"), policy=IMAGES) == []


def test_an_empty_image_is_none_of_the_list() -> None:
    job = copy_of(_template(), "retrain-1-ray")
    _head(job)["spec"]["containers"][0]["image"] = ""
    assert _faults(job, policy=IMAGES)


FIELDS = {
    "spec": "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
    "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished",
    "cluster": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions "
    "upgradeStrategy workerGroupSpecs",
    "head": "enableIngress headService ingressOptions labels rayStartParams resources serviceType template",
    "worker": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams "
    "replicas resources scaleStrategy suspend template",
}
"""Fields of KubeRay 1.7 that were read for this policy: each is limited by it, or leads nowhere."""


def test_a_field_that_a_new_kuberay_adds_is_looked_at() -> None:
    found = Path(VALIDATE.parent, "crds", "ray.io_rayjobs.yaml")
    if not found.is_file():
        pytest.skip("KubeRay's definitions are not here")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte
    [version] = yaml.load(found.read_text(), loader)["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    cluster = spec["rayClusterSpec"]["properties"]
    head, worker = cluster["headGroupSpec"]["properties"], cluster["workerGroupSpecs"]["items"]["properties"]
    for name, fields in {"spec": spec, "cluster": cluster, "head": head, "worker": worker}.items():
        assert sorted(fields) == FIELDS[name].split(), f"limit the new fields of {name} in k8s/base/admission.yaml"


@pytest.mark.parametrize("folder", ["base", "overlays/kind", "overlays/gpu-prod"])
def test_keys_of_clients_and_usage_are_mounted_where_replicas_run_alone(folder: str) -> None:
    """The head runs no replica: it offers no CPUs, and each replica reserves some."""
    cluster = of(documents(rendered(folder)), "RayService")["spec"]["rayClusterConfig"]
    head, [group] = cluster["headGroupSpec"]["template"]["spec"], cluster["workerGroupSpecs"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    worker = group["template"]["spec"]
    assert {volume["name"] for volume in worker["volumes"]} == {"tmp", "usage", "access"}
    assert {volume["name"] for volume in head["volumes"]} == {"tmp", "kubernetes-api"}
    assert [mount["name"] for mount in head["containers"][0]["volumeMounts"]] == ["tmp"]
