"""Run kubectl: check access, apply and create manifests."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from raypath.components.core.errors import PlatformError, UserError


def check(*where: str) -> None:
    """Raise UserError where kubectl, the cluster or KubeRay is missing, before anything is submitted.

    where: -n NAMESPACE and further arguments for kubectl.
    """
    if shutil.which("kubectl") is None:
        fix = "install it, or use `raypath render --on kuberay` and apply its output elsewhere"
        raise UserError("kubectl is not installed", fix=fix)
    done = kubectl("auth", "can-i", "create", "rayjobs.ray.io", *where, timeout=30, allowed=(0, 1))
    allowed, reason = done.stdout.strip(), last_line(done.stderr)
    if "refused" in done.stderr or "nable to connect" in done.stderr or "no such host" in done.stderr:
        raise UserError(f"no cluster answers: {reason}", fix="check `kubectl config current-context`")
    if "doesn't have a resource type" in done.stderr:
        raise UserError("the cluster does not know RayJobs", fix="install the KubeRay operator; see k8s/README.md")
    if allowed != "yes":
        message = reason or "you are not allowed to create RayJobs in this namespace"
        raise UserError(f"the cluster rejects the job: {message}", fix="check `kubectl config current-context`")


def apply(manifest: Mapping[str, Any]) -> None:
    """Apply a manifest."""
    kubectl("apply", "-f", "-", given=json.dumps(manifest))


def create(manifest: Mapping[str, Any]) -> str:
    """Create an object; returns the name that the cluster generated for it."""
    made = kubectl("create", "-o", "jsonpath={.metadata.name}", "-f", "-", given=json.dumps(manifest))
    return made.stdout.strip()


def kubectl(
    *words: str, given: str = "", timeout: float = 60.0, allowed: tuple[int, ...] = (0,)
) -> subprocess.CompletedProcess[str]:
    """Run kubectl with this standard input. Raises PlatformError with the last line of its error output."""
    try:
        done = subprocess.run(["kubectl", *words], input=given, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise PlatformError(
            f"kubectl {words[0]} took more than {timeout:g} s", fix="check that the cluster is reachable"
        ) from None
    if done.returncode not in allowed:
        raise PlatformError(f"kubectl: {last_line(done.stderr)}", fix="check `kubectl config current-context`")
    return done


def last_line(output: str) -> str:
    """The last line of kubectl's error output, which has the reason."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
