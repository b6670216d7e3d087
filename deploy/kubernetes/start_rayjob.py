"""Start a copy of a suspended RayJob, from inside the cluster: `python -m raypath.deploy.kubernetes.start_rayjob
TEMPLATE NAME`.

What the CronJob runs. Standard library only, and a few calls to the Kubernetes API with the pod's own short-lived
token: read the template, look at its copies, create one, remove old ones. A copy of that name that is there already was
started by an attempt before; while another one is not done, none is started.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable, UserError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
QUEUE, QUEUE_LABEL = "raypath.io/queue", "kueue.x-k8s.io/queue-name"
TEMPLATE_LABEL = "raypath.io/template"
KEPT = 3
"""Copies that are done and stay to be looked at; KubeRay itself removes their clusters alone."""
LONGEST = 47
"""Characters that KubeRay takes for the name of a RayJob."""


def main(template: str, name: str, address: str = "", account: Path = ACCOUNT) -> str:
    """Start it; returns a line that tells of it. Raises UserError, PlatformError, Unavailable."""
    if len(name) > LONGEST:
        raise UserError(f"{name} has {len(name)} characters, and KubeRay takes {LONGEST}", fix="choose a shorter name")
    address = address or api_address()
    try:
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"no token of the cluster: {error}", fix="mount one, as k8s/base/cronjob.yaml does") from None
    jobs = f"{address}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    status, found = call("GET", f"{jobs}/{template}", account)
    if status != 200:
        raise PlatformError(f"RayJob {template}: {told(found)}", fix="apply k8s/ or `raypath schedule` again")
    copies = _copies(jobs, template, account)
    busy = [each for each in copies if not _ended(each) and _name(each) != name]
    if busy:
        return f"{name} not started: {_name(busy[0])}, a copy of {template} too, is not done"
    status, made = call("POST", jobs, account, copy_of(found, name))
    if status == 409:
        return f"{name} was started before"
    if status not in (200, 201):
        raise PlatformError(f"RayJob {name} was refused: {told(made)}", fix=f"look at RayJob {template}")
    for old in [each for each in copies if _ended(each)][:-KEPT]:
        call("DELETE", f"{jobs}/{_name(old)}", account)
    return f"{name} started, a copy of {template}"


def _copies(jobs: str, template: str, account: Path) -> list[dict[str, Any]]:
    """All copies of a template, the oldest first."""
    status, found = call("GET", f"{jobs}?labelSelector={quote(f'{TEMPLATE_LABEL}={template}')}", account)
    if status != 200:
        raise PlatformError(f"copies of RayJob {template}: {told(found)}", fix="apply k8s/ again")
    made: list[dict[str, Any]] = found.get("items", [])
    return sorted(made, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))


def _ended(job: dict[str, Any]) -> bool:
    return (job.get("status") or {}).get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")


def _name(job: dict[str, Any]) -> str:
    return str(job["metadata"]["name"])


def copy_of(template: dict[str, Any], name: str) -> dict[str, Any]:
    """A RayJob as its template says, on its way; in a queue it stays suspended until Kueue lets it go."""
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
    """Of the Kubernetes API, as a pod knows it. Raises UserError elsewhere."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise UserError("this is no pod of a cluster", fix="there, use `kubectl create job NAME --from=cronjob/...`")
    return f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"


def call(method: str, url: str, account: Path, body: Any = None) -> tuple[int, dict[str, Any]]:
    """(status, answer) of the API. Raises Unavailable where it is silent."""
    # Read each time: the token in the file is renewed, and one in memory would run out.
    token = (account / "token").read_text(encoding="utf-8").strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers, method=method)
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _json(error.read())
    except OSError as error:
        raise Unavailable(f"the Kubernetes API does not answer at {url}: {error}", fix="try again") from None


def _json(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def told(status: dict[str, Any]) -> str:
    """Why the API refused."""
    return str(status.get("message", "no reason given"))[:300]


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], sys.argv[2]))
    except RaypathError as error:
        print(f"raypath: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
