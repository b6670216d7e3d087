"""Start a copy of a suspended RayJob from inside the cluster.

    python -m raypath.deploy.kubernetes.start_rayjob TEMPLATE NAME

The command of the CronJob. It calls the Kubernetes API with the pod's own short-lived token: read the template, list
its copies, create one, delete old ones. A copy of that name was started by an earlier attempt; while another copy is
unfinished, none is started.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable, UserError
from raypath.components.tracking import http

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
QUEUE, QUEUE_LABEL = "raypath.io/queue", "kueue.x-k8s.io/queue-name"
TEMPLATE_LABEL = "raypath.io/template"
KEPT = 3
"""Finished copies that are kept for inspection; KubeRay itself only deletes their clusters."""
MAX_NAME = 47
"""KubeRay's limit for the name of a RayJob, in characters."""


def main(template: str, name: str, address: str = "", account: Path = ACCOUNT) -> str:
    """Start a copy; returns a message about it. Raises UserError, PlatformError, Unavailable."""
    if len(name) > MAX_NAME:
        raise UserError(
            f"{name} has {len(name)} characters, and KubeRay allows {MAX_NAME}", fix="choose a shorter name"
        )
    address = address or api_address()
    try:
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(
            f"cannot read the service account: {error}", fix="mount its token, as k8s/base/cronjob.yaml does"
        ) from None
    jobs = f"{address}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    status, found = call("GET", f"{jobs}/{template}", account)
    if status != 200:
        raise PlatformError(f"RayJob {template}: {reason(found)}", fix="apply k8s/ or `raypath schedule` again")
    copies = _copies(jobs, template, account)
    busy = [each for each in copies if not _ended(each) and _name(each) != name]
    if busy:
        return f"{name} not started: {_name(busy[0])}, another copy of {template}, has not finished"
    status, made = call("POST", jobs, account, copy_of(found, name))
    if status == 409:
        return f"{name} was started before"
    if status not in (200, 201):
        raise PlatformError(f"RayJob {name} was rejected: {reason(made)}", fix=f"check RayJob {template}")
    for old in [each for each in copies if _ended(each)][:-KEPT]:
        call("DELETE", f"{jobs}/{_name(old)}", account)
    return f"{name} started, a copy of {template}"


def _copies(jobs: str, template: str, account: Path) -> list[dict[str, Any]]:
    """Copies of a template, oldest first."""
    status, found = call("GET", f"{jobs}?labelSelector={quote(f'{TEMPLATE_LABEL}={template}')}", account)
    if status != 200:
        raise PlatformError(f"copies of RayJob {template}: {reason(found)}", fix="apply k8s/ again")
    made: list[dict[str, Any]] = found.get("items", [])
    return sorted(made, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))


def _ended(job: dict[str, Any]) -> bool:
    return (job.get("status") or {}).get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")


def _name(job: dict[str, Any]) -> str:
    return str(job["metadata"]["name"])


def copy_of(template: dict[str, Any], name: str) -> dict[str, Any]:
    """A RayJob of the template that is not suspended; in a queue it stays suspended until Kueue admits it."""
    meta = template["metadata"]
    queue = (meta.get("annotations") or {}).get(QUEUE, "")
    labels = {**(meta.get("labels") or {}), TEMPLATE_LABEL: meta["name"]}
    return {
        "apiVersion": template["apiVersion"],
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {**labels, QUEUE_LABEL: queue} if queue else labels,
        },
        "spec": {**template["spec"], "suspend": bool(queue)},
    }


def api_address() -> str:
    """URL of the Kubernetes API from the pod's environment. Raises UserError outside a pod."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise UserError("not running in a pod", fix="outside, use `kubectl create job NAME --from=cronjob/...`")
    return f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"


def call(method: str, url: str, account: Path, body: Any = None) -> tuple[int, dict[str, Any]]:
    """Call the Kubernetes API: (status, object). Raises Unavailable where it does not answer."""
    # Read each time: the token in the file is rotated.
    token = (account / "token").read_text(encoding="utf-8").strip()
    content = None if body is None else json.dumps(body).encode()
    ca_file = str(account / "ca.crt")
    try:
        found = http.send(
            method, url, body=content, headers=http.bearer(token), timeout=30, proxy=False, ca_file=ca_file
        )
    except ConnectionError as error:
        raise Unavailable(f"the Kubernetes API does not answer at {url}: {error}", fix="try again") from None
    answer = found.json()
    return found.status, answer if isinstance(answer, dict) else {}


def reason(status: dict[str, Any]) -> str:
    """The API's reason for an error."""
    return str(status.get("message", "no reason given"))[:300]


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], sys.argv[2]))
    except RaypathError as error:
        print(f"raypath: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
