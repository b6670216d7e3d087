"""Rendered manifests for tests: kustomize, and the strict validator of the house where it is at hand."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import runpy
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
K8S = ROOT / "k8s"
VALIDATE = ROOT.parent / "shared" / "k8s-schemas" / "validate"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one written in C, where PyYAML has it, takes a tenth of the time."""
IMAGE = "registry.example.com/raypath@sha256:" + "a" * 64


@functools.cache
def rendered(folder: str) -> str:
    """Render a folder of k8s/ with kustomize; skips the test without it."""
    tool = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if shutil.which(tool[0]) is None:
        pytest.skip("neither kubectl nor kustomize is installed")
    done = subprocess.run([*tool, str(K8S / folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all(text, Loader=LOADER) if each]


def validate(text: str, *options: str) -> str:
    """The validator's closing line; fails with its faults. Skipped where it, or what it needs, is absent."""
    if not VALIDATE.is_file():
        pytest.skip("the validator ../shared/k8s-schemas/validate is not here")
    for package in ("jsonschema", "kubernetes_validate"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the validator needs {package}: pip install jsonschema kubernetes-validate")
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sys, "stdin", io.StringIO(text))
        status = _validator()(["--quiet", *options])
    assert status == 0, said.getvalue()
    return said.getvalue().strip().splitlines()[-1]


@functools.cache
def _validator() -> Callable[[list[str]], int]:
    """Its main function, in this process: reading its schemas, and what it imports, takes some seconds."""
    main: Callable[[list[str]], int] = runpy.run_path(str(VALIDATE))["main"]
    return main


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """Every pod spec in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("containers"), list):
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def check_pod(pod: dict[str, Any]) -> None:
    """Check the pod security standard `restricted`, and Raypath's own requirements."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"].startswith("raypath")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for volume in pod["volumes"]:
        assert "hostPath" not in volume
    for box in pod["containers"]:
        check_container(box)


def check_container(box: dict[str, Any]) -> None:
    held = box["securityContext"]
    assert held["allowPrivilegeEscalation"] is False
    assert held["readOnlyRootFilesystem"] is True
    assert held["capabilities"] == {"drop": ["ALL"]}
    for what in ("cpu", "memory", "ephemeral-storage"):
        assert box["resources"]["requests"][what], box["name"]
        assert box["resources"]["limits"][what], box["name"]
    for variable in box.get("env", []):
        told = any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "KEY"))
        assert not told or "value" not in variable, variable["name"]


def of(found: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The document of this kind, and of this name where there are several."""
    return next(d for d in found if d["kind"] == kind and (not name or d["metadata"]["name"] == name))
