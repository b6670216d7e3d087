"""Run a step of a Kubeflow pipeline on a Ray cluster of its own: its container creates a RayJob and waits for it.

The container calls the Kubernetes API with the pod's own short-lived token. Its service account needs to create, get
and delete rayjobs in the namespace of k8s/base.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from pathlib import Path
from typing import Any

from raypath.components.core.errors import PlatformError, Unavailable, UserError
from raypath.deploy.kubeflow.single_step import PreparedStep
from raypath.deploy.kubernetes.start_rayjob import ACCOUNT, api_address, call, reason
from raypath.deploy.launchers import RunRequest
from raypath.deploy.remote.events import last_error_line

POLL_INTERVAL = 5.0
"""Seconds between two polls of a RayJob."""
RECONNECT_TIMEOUT = 120.0
"""Seconds to keep retrying a Kubernetes API that does not answer."""


def manifest(one: PreparedStep, workflow: str, words: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """The RayJob of a step. words: further arguments of its driver. Raises UserError."""
    from raypath.deploy.kubernetes import launcher as kuberay
    from raypath.deploy.kubernetes.params import KubeRayParams

    params = KubeRayParams().override(settings)
    made = kuberay.rayjob_manifest(RunRequest(workflow, one.graph, one.store.home), params)
    made["metadata"]["name"] = rayjob_name(one)
    made["spec"]["suspend"] = False
    driver = ["python", "-m", "raypath.deploy.kubeflow.container", "driver", workflow, "--step", one.node.name, *words]
    made["spec"]["entrypoint"] = shlex.join(driver)
    # Kubeflow retries the container that waits.
    made["spec"]["backoffLimit"] = 0
    return made


def rayjob_name(one: PreparedStep) -> str:
    """Name of the step's RayJob: the same for each attempt of its container, another one for another run."""
    mark = hashlib.sha256(f"{one.spec.run} {one.spec.key}".encode()).hexdigest()[:10]
    return f"{one.node.name[:36].replace('_', '-').lower()}-{mark}"


def run(
    one: PreparedStep, workflow: str, words: list[str], settings: dict[str, Any], address: str = "",
    account: Path = ACCOUNT, poll: float = POLL_INTERVAL,
) -> None:  # fmt: skip
    """Create the step's RayJob, or find the one of an earlier attempt, and wait for its end.

    When the container is stopped, the RayJob is deleted. Raises UserError where creating it is not allowed,
    PlatformError where it fails.
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
            fix = "allow the service account of Kubeflow's pods to create, get and delete rayjobs there"
            raise UserError(f"not allowed to create RayJob {name}: {reason(made)}", fix=fix)
        if status != 409:
            raise PlatformError(f"RayJob {name} was rejected: {reason(made)}", fix="check the kubeflow.* settings")
        _, found = call("GET", f"{jobs}/{name}", account)
        if found.get("metadata") and not _failed(found):
            print(f"RayJob {name} was created by an earlier attempt", flush=True)
            return
        call("DELETE", f"{jobs}/{name}", account)
        time.sleep(poll)
    raise PlatformError(f"RayJob {name} of an earlier attempt is not deleted", fix="delete it by hand")


def _wait(jobs: str, name: str, seconds: float, account: Path, poll: float) -> None:
    printed, last_contact, deadline = "", time.monotonic(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status, found = call("GET", f"{jobs}/{name}", account)
            last_contact = time.monotonic()
        except Unavailable:
            if time.monotonic() - last_contact > RECONNECT_TIMEOUT:
                raise
            time.sleep(poll)
            continue
        if status == 404:
            raise PlatformError(f"RayJob {name} was deleted", fix="run the pipeline again")
        state = " ".join(_state(found))
        if state != printed:
            print(f"RayJob {name}: {state}", flush=True)
            printed = state
        if _failed(found):
            raise PlatformError(f"RayJob {name}: {_reason(found)}", fix=f"kubectl logs -l job-name={name}")
        if _state(found)[:1] == ["Complete"]:
            return
        time.sleep(poll)
    call("DELETE", f"{jobs}/{name}", account)
    raise PlatformError(f"RayJob {name} did not end within {seconds:g} s", fix="raise kubeflow.deadline")


def _state(job: dict[str, Any]) -> list[str]:
    status = job.get("status") or {}
    return [state for state in (status.get("jobDeploymentStatus"), status.get("jobStatus")) if state]


def _reason(job: dict[str, Any]) -> str:
    """The driver's last error, which Ray's message repeats with the end of the log; else the message itself."""
    lines = str(job["status"].get("message") or "it failed").splitlines()
    return last_error_line(lines) or lines[0][:500]


def _failed(job: dict[str, Any]) -> bool:
    return bool({"Failed", "FAILED", "STOPPED"} & set(_state(job)))
