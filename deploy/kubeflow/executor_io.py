"""Inputs and outputs of a container, without kfp: read the ExecutorInput message, write the output files.

Kubeflow passes references and Raypath's store has the files: the metadata of a Kubeflow artifact names the record of
the step that made it, and the artifact itself is a small file that describes it.
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
from raypath.deploy.kubeflow.pipeline import METRICS, has_metrics, name_of, scalar_fields

KEY = "raypath_key"
_MOUNTS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/", "oci://": "/oci/"}
"""Folder in which Kubeflow's launcher expects an output, by the scheme of its URI."""


@dataclass(frozen=True)
class ExecutorInput:
    """Kubeflow's message to a container, decoded from JSON."""

    message: Mapping[str, Any]

    @classmethod
    def read(cls, text: str) -> ExecutorInput:
        """Decode the message. Raises PlatformError for text that is not JSON."""
        try:
            return cls(dict(json.loads(text)))
        except ValueError:
            raise PlatformError("--executor_input is not JSON", fix="start this from a pipeline") from None

    @property
    def parameters(self) -> dict[str, Any]:
        """The input parameters."""
        return dict(self.message.get("inputs", {}).get("parameterValues", {}))

    def keys(self) -> dict[str, str]:
        """The record of each input artifact, by its name. Raises PlatformError for an artifact of another origin."""
        found = {}
        for name, given in self.message.get("inputs", {}).get("artifacts", {}).items():
            key = given["artifacts"][0].get("metadata", {}).get(KEY)
            if not key:
                fix = "run the whole pipeline, with caching off"
                raise PlatformError(f"input {name} was not made by a step of this pipeline", fix=fix)
            found[name] = str(key)
        return found

    def write_outputs(
        self, parameters: Mapping[str, Any], artifacts: Mapping[str, tuple[Any, Mapping[str, Any]]]
    ) -> None:
        """Write the outputs that the message requests. artifacts: content of the file and metadata, by name."""
        outputs = self.message.get("outputs", {})
        for name, given in outputs.get("parameters", {}).items():
            value = parameters[name]
            _write(Path(given["outputFile"]), value if isinstance(value, str) else json.dumps(value))
        written = {}
        for name, given in outputs.get("artifacts", {}).items():
            content, metadata = artifacts[name]
            one = given["artifacts"][0]
            _write(_local(one["uri"]), json.dumps(content, indent=1))
            written[name] = {"artifacts": [{"name": one.get("name", name), "uri": one["uri"], "metadata": metadata}]}
        if file := outputs.get("outputFile"):
            _write(Path(file), json.dumps({"artifacts": written}))


def outputs_of(
    artifact: Artifact, key: str, reused: bool, refs: list[Ref]
) -> tuple[dict[str, Any], dict[str, tuple[Any, dict[str, Any]]]]:
    """(output parameters, output artifacts) of a finished step."""
    fields = {name: getattr(artifact, name) for name in scalar_fields(type(artifact))}
    artifacts = {name_of(ref): _described(artifact, ref, key) for ref in refs}
    if has_metrics(type(artifact)):
        metrics = artifact.model_dump(mode="json")[METRICS]
        # Kubeflow's page shows one flat table, so metrics per class are left out; JSON has no NaN.
        shown = {name: value for name, value in metrics.items() if "/" not in name and math.isfinite(value)}
        artifacts[METRICS] = metrics, shown
    return {"key": key, "digest": artifact.digest, "reused": reused, **fields}, artifacts


def _described(artifact: Artifact, ref: Ref, key: str) -> tuple[Any, dict[str, Any]]:
    for name in ref.fields:
        artifact = getattr(artifact, name)
    fields = {name: getattr(artifact, name) for name in scalar_fields(type(artifact))}
    kind, place = type(artifact).__name__, artifact.uri
    # JSON has no NaN.
    fields = {k: v for k, v in fields.items() if not isinstance(v, float) or math.isfinite(v)}
    metadata = {**fields, KEY: key, "digest": artifact.digest, "kind": kind, "place": place}
    return artifact.model_dump(mode="json"), metadata


def _local(uri: str) -> Path:
    for scheme, folder in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(folder, uri.removeprefix(scheme))
    return Path(uri)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
