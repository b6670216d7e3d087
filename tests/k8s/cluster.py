"""A real cluster for the tests, and clients inside it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
IMAGE = "raypath:dev"


class Kube:
    """kubectl against one cluster, in the namespace of Raypath unless another is named."""

    def __init__(self, config: str) -> None:
        self.environment = {**os.environ, "KUBECONFIG": config}

    def __call__(
        self, *words: str, given: Any = None, check: bool = True, namespace: str = "raypath", seconds: float = 120.0
    ) -> str:
        """Run kubectl and return its output; AssertionError on failure, unless `check` is false."""
        command = ["kubectl", "-n", namespace, *words]
        text = "" if given is None else json.dumps(given)
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=seconds, env=self.environment, cwd=ROOT
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object."""
        found: dict[str, Any] = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods with these labels that are not on their way out."""
        found: list[dict[str, Any]] = json.loads(self("get", "pods", "-l", selector, "-o", "json"))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def until(self, true: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait for a truthy result of `true`; AssertionError with the cluster's objects after the timeout."""
        end = time.monotonic() + seconds
        while not (found := true()):
            said = "" if time.monotonic() < end else self("get", "pods,rayjobs,rayservices", "-o", "wide")
            assert time.monotonic() < end, f"{what}: not within {seconds:g} s\n{said}"
            time.sleep(2)
        return found


def ready(pod: Mapping[str, Any]) -> bool:
    """True for a pod that is ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


class Clients:
    """Clients of the endpoint, in a namespace of their own."""

    def __init__(self, kube: Kube, namespace: str, key: str) -> None:
        self.kube, self.namespace = kube, namespace
        labels = {"raypath.io/clients": "true"}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
        kube("apply", "-f", "-", given=made)
        self._do("create", "configmap", "load", f"--from-file={ROOT / 'tests' / 'k8s' / 'load.py'}")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"key": key}}
        self._do("create", "-f", "-", given=secret)

    def start(self, clients: int, pause: float) -> None:
        """Let so many ask, each so many seconds after its last answer; they begin to count anew."""
        self._do("delete", "pod", "load", "--ignore-not-found", "--grace-period=0", "--force")
        told = {"URL": "http://reviews-serve-svc.raypath:8000", "CLIENTS": str(clients), "PAUSE": str(pause)}
        environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in told.items()]
        environment.append({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "key"}}})
        box = {
            "name": "load",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": ["python", "/load/load.py"],
            "env": environment,
            "volumeMounts": [{"name": "load", "mountPath": "/load"}],
        }
        spec = {"containers": [box], "volumes": [{"name": "load", "configMap": {"name": "load"}}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load"}, "spec": spec}
        self._do("create", "-f", "-", given=pod)
        self.kube.until(self._answers, 120, "an answer")

    def seen(self) -> dict[str, int]:
        """Responses per version; AssertionError for a failed request."""
        line = self._do("logs", "load", "--tail=1")
        print(f"clients: {line}")
        seen: dict[str, int] = json.loads(line)["seen"]
        assert all(each.startswith("version ") for each in seen), seen
        return seen

    def _answers(self) -> bool:
        line = self._do("logs", "load", "--tail=1", check=False)
        return line.startswith("{") and bool(json.loads(line)["seen"])

    def _do(self, *words: str, given: Any = None, check: bool = True) -> str:
        return self.kube(*words, given=given, check=check, namespace=self.namespace)
