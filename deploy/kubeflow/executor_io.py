"""What Kubeflow gives a container and takes from it, without kfp: the ExecutorInput message, and files in return.

Kubeflow carries addresses, our store the files: an artifact's metadata names the record of the step that made it, and
where Kubeflow looks for the artifact itself lies a small file that describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.errors import PlatformError
from raypath.components.core.graph import Ref
from raypath.deploy.kubeflow.pipeline import METRICS, facts_of, has_metrics, name_of

KEY = "raypath_key"
_MOUNTS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/", "oci://": "/oci/"}
"""Where Kubeflow's launcher looks for an output, by how its address begins."""


@dataclass(frozen=True)
class Call:
    """One ExecutorInput, as JSON has it."""

    message: Mapping[str, Any]

    @classmethod
    def read(cls, text: str) -> Call:
        """Raises PlatformError for what is no such message."""
        try:
            return cls(dict(json.loads(text)))
        except ValueError:
            raise PlatformError("--executor_input is no JSON", fix="start this from a pipeline") from None

    @property
    def parameters(self) -> dict[str, Any]:
        """The input parameters."""
        return dict(self.message.get("inputs", {}).get("parameterValues", {}))

    def keys(self) -> dict[str, str]:
        """The record behind each input artifact, by its name. Raises PlatformError for a foreign artifact."""
        found = {}
        for name, given in self.message.get("inputs", {}).get("artifacts", {}).items():
            key = given["artifacts"][0].get("metadata", {}).get(KEY)
            if not key:
                fix = "run the whole pipeline, with its caching off"
                raise PlatformError(f"input {name} was not made by a step of this pipeline", fix=fix)
            found[name] = str(key)
        return found

    def answer(self, parameters: Mapping[str, Any], artifacts: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> None:
        """Write the outputs that are asked for. artifacts: what stands in the file, and the metadata."""
        asked = self.message.get("outputs", {})
        for name, given in asked.get("parameters", {}).items():
            value = parameters[name]
            _write(Path(given["outputFile"]), value if isinstance(value, str) else json.dumps(value))
        told = {}
        for name, given in asked.get("artifacts", {}).items():
            content, metadata = artifacts[name]
            one = given["artifacts"][0]
            _write(_local(one["uri"]), json.dumps(content, indent=1))
            told[name] = {"artifacts": [{"name": one.get("name", name), "uri": one["uri"], "metadata": metadata}]}
        if file := asked.get("outputFile"):
            _write(Path(file), json.dumps({"artifacts": told}))


def outputs_of(
    artifact: Artifact, key: str, reused: bool, handed_on: list[Ref]
) -> tuple[dict[str, Any], dict[str, tuple[Any, dict[str, Any]]]]:
    """(output parameters, output artifacts) of a step that is done."""
    facts = {name: getattr(artifact, name) for name in facts_of(type(artifact))}
    artifacts = {name_of(ref): _described(artifact, ref, key) for ref in handed_on}
    if has_metrics(type(artifact)):
        figures = artifact.model_dump(mode="json")[METRICS]
        # Kubeflow's page has one table; figures per class and what is no number would not fit.
        shown = {name: value for name, value in figures.items() if "/" not in name and math.isfinite(value)}
        artifacts[METRICS] = figures, shown
    return {"key": key, "digest": artifact.digest, "reused": reused, **facts}, artifacts


def _described(artifact: Artifact, ref: Ref, key: str) -> tuple[Any, dict[str, Any]]:
    for name in ref.fields:
        artifact = getattr(artifact, name)
    facts = {name: getattr(artifact, name) for name in facts_of(type(artifact))}
    kind, place = type(artifact).__name__, artifact.uri
    # What is no number is no JSON either.
    facts = {k: v for k, v in facts.items() if not isinstance(v, float) or math.isfinite(v)}
    metadata = {**facts, KEY: key, "digest": artifact.digest, "kind": kind, "place": place}
    return artifact.model_dump(mode="json"), metadata


def _local(uri: str) -> Path:
    for scheme, folder in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(folder, uri.removeprefix(scheme))
    return Path(uri)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
