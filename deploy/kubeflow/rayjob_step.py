"""A step of a Kubeflow pipeline on a Ray cluster of its own: its container creates a RayJob and waits for it.

It talks to the Kubernetes API with the pod's own short-lived token, whose account needs to create, get and delete
rayjobs in the namespace of k8s/base.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from pathlib import Path
from typing import Any

from raypath.components.core.errors import PlatformError, Unavailable, UserError
from raypath.deploy.kubeflow.single_step import PreparedStep
from raypath.deploy.kubernetes.start_rayjob import ACCOUNT, api_address, call, told
from raypath.deploy.launchers import RunRequest

POLL = 5.0
"""Seconds between two looks at a RayJob."""
PATIENCE = 120.0
"""Seconds for which the Kubernetes API may be silent."""


def manifest(one: PreparedStep, workflow: str, words: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """The RayJob of a step. words: what its driver is told besides workflow and step. Raises UserError."""
    from raypath.deploy.kubernetes import launcher as kuberay
    from raypath.deploy.kubernetes.params import KubeRayParams

    params = KubeRayParams().override(settings)
    made = kuberay.rayjob_manifest(RunRequest(workflow, one.graph, one.store.home), params)
    made["metadata"]["name"] = name_of(one)
    made["spec"]["suspend"] = False
    driver = ["python", "-m", "raypath.deploy.kubeflow.container", "driver", workflow, "--step", one.node.name, *words]
    made["spec"]["entrypoint"] = shlex.join(driver)
    # The container that waits is tried again by Kubeflow.
    made["spec"]["backoffLimit"] = 0
    return made


def name_of(one: PreparedStep) -> str:
    """Of the step's RayJob: the same when its container is tried again, another for another run."""
    mark = hashlib.sha256(f"{one.spec.run} {one.spec.key}".encode()).hexdigest()[:10]
    return f"{one.node.name[:36].replace('_', '-').lower()}-{mark}"


def run(
    one: PreparedStep, workflow: str, words: list[str], settings: dict[str, Any], address: str = "",
    account: Path = ACCOUNT, poll: float = POLL,
) -> None:  # fmt: skip
    """Create the step's RayJob, or find the one of an attempt before, and wait until it is done.

    Stopped, it takes the RayJob away. Raises UserError where it may not be created, PlatformError where it fails.
    """
    wanted = manifest(one, workflow, words, settings)
    name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    jobs = f"{address or api_address()}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    try:
        _create(jobs, wanted, account, poll)
        _wait(jobs, name, settings["deadline"], account, poll)
    except KeyboardInterrupt:
        call("DELETE", f"{jobs}/{name}", account)
        raise


def _create(jobs: str, wanted: dict[str, Any], account: Path, poll: float) -> None:
    name = wanted["metadata"]["name"]
    for _ in range(60):
        status, made = call("POST", jobs, account, wanted)
        if status in (200, 201):
            print(f"RayJob {name} created", flush=True)
            return
        if status in (401, 403):
            fix = "let the account of Kubeflow's pods create, get and delete rayjobs there"
            raise UserError(f"RayJob {name} may not be created: {told(made)}", fix=fix)
        if status != 409:
            raise PlatformError(f"RayJob {name} was refused: {told(made)}", fix="look at kubeflow.* settings")
        _, found = call("GET", f"{jobs}/{name}", account)
        if found.get("metadata") and not _failed(found):
            print(f"RayJob {name} was created by an attempt before", flush=True)
            return
        call("DELETE", f"{jobs}/{name}", account)
        time.sleep(poll)
    raise PlatformError(f"RayJob {name} of an attempt before does not go away", fix="delete it by hand")


def _wait(jobs: str, name: str, seconds: float, account: Path, poll: float) -> None:
    last, heard, end = "", time.monotonic(), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            status, found = call("GET", f"{jobs}/{name}", account)
            heard = time.monotonic()
        except Unavailable:
            if time.monotonic() - heard > PATIENCE:
                raise
            time.sleep(poll)
            continue
        if status == 404:
            raise PlatformError(f"RayJob {name} was deleted", fix="run the pipeline again")
        now = " ".join(_state(found))
        if now != last:
            print(f"RayJob {name}: {now}", flush=True)
            last = now
        if _failed(found):
            raise PlatformError(f"RayJob {name}: {_why(found)}", fix=f"kubectl logs -l job-name={name}")
        if _state(found)[:1] == ["Complete"]:
            return
        time.sleep(poll)
    call("DELETE", f"{jobs}/{name}", account)
    raise PlatformError(f"RayJob {name} did not end within {seconds:g} s", fix="raise kubeflow.deadline")


def _state(job: dict[str, Any]) -> list[str]:
    status = job.get("status") or {}
    return [state for state in (status.get("jobDeploymentStatus"), status.get("jobStatus")) if state]


def _why(job: dict[str, Any]) -> str:
    """What the driver said last; Ray's message has the end of its log. Else what Ray says itself."""
    said = str(job["status"].get("message") or "it failed").splitlines()
    ours = [line.removeprefix("raypath: ") for line in said if line.startswith("raypath: ")]
    return (ours or said[:1])[-1][:500]


def _failed(job: dict[str, Any]) -> bool:
    return bool({"Failed", "FAILED", "STOPPED"} & set(_state(job)))
