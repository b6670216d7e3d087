"""kubectl: check, apply and create manifests."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from raypath.components.core.errors import PlatformError, UserError


def check(*where: str) -> None:
    """Raise UserError where kubectl, a cluster or KubeRay is not at hand, before anything is submitted.

    where: -n NAMESPACE, and what else kubectl has to be told.
    """
    if shutil.which("kubectl") is None:
        fix = "install it, or use `raypath render --on kuberay` and apply that elsewhere"
        raise UserError("kubectl is not installed", fix=fix)
    answer = kubectl("auth", "can-i", "create", "rayjobs.ray.io", *where, timeout=30, allowed=(0, 1))
    said, why = answer.stdout.strip(), last_line(answer.stderr)
    if "refused" in answer.stderr or "nable to connect" in answer.stderr or "no such host" in answer.stderr:
        raise UserError(f"no cluster answers: {why}", fix="look at `kubectl config current-context`")
    if "doesn't have a resource type" in answer.stderr:
        raise UserError("the cluster does not know RayJobs", fix="install the KubeRay operator; see k8s/README.md")
    if said != "yes":
        told = why or "you may not create RayJobs there"
        raise UserError(f"the cluster says: {told}", fix="look at `kubectl config current-context`")


def apply(manifest: Mapping[str, Any]) -> None:
    """Make a manifest so in the cluster."""
    kubectl("apply", "-f", "-", given=json.dumps(manifest))


def create(manifest: Mapping[str, Any]) -> str:
    """Create an object; returns the name that the cluster gave it."""
    made = kubectl("create", "-o", "jsonpath={.metadata.name}", "-f", "-", given=json.dumps(manifest))
    return made.stdout.strip()


def kubectl(
    *words: str, given: str = "", timeout: float = 60.0, allowed: tuple[int, ...] = (0,)
) -> subprocess.CompletedProcess[str]:
    """Run kubectl with this standard input. Raises PlatformError with the line that it says why it failed."""
    try:
        done = subprocess.run(["kubectl", *words], input=given, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise PlatformError(f"kubectl {words[0]} took more than {timeout:g} s", fix="is the cluster there?") from None
    if done.returncode not in allowed:
        raise PlatformError(f"kubectl: {last_line(done.stderr)}", fix="look at `kubectl config current-context`")
    return done


def last_line(said: str) -> str:
    """Of what kubectl says, in which it tells why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
