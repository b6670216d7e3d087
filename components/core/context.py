"""Context of a running step: its folders, resources, tracking and logging."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from raypath.components.core.artifacts import Artifact


class Tracker(Protocol):
    """Log of a step's metrics, params, tags and files. Its methods do not fail if the tracking server is down."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def params(self, values: Mapping[str, Any]) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, source: str, context: str, rows: int) -> None: ...
    def artifact(self, path: Path, folder: str = "") -> None: ...


class NoTracker:
    """Tracker that discards everything, for a component that is called directly."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def params(self, values: Mapping[str, Any]) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, source: str, context: str, rows: int) -> None: ...
    def artifact(self, path: Path, folder: str = "") -> None: ...


@dataclass(frozen=True)
class Tracking:
    """Destination of a step's tracking data; all fields are "" if tracking is off."""

    uri: str = ""
    """URI of the MLflow server."""
    experiment: str = ""
    parent: str = ""
    """Raypath's id of the workflow run, which is a tag on its MLflow run."""
    spool: str = ""
    """Folder in which data is spooled until the server has it."""


@dataclass(frozen=True)
class ShardStorage:
    """Object storage for the shards of datasets, by their SHA-256."""

    address: str
    """s3://BUCKET/FOLDER of the store."""
    cache: Path
    """Folder in which each machine keeps the shards that it wrote or read."""
    folder: str = "shards"
    """Folder in the bucket."""

    def temporary(self, key: str) -> ShardStorage:
        """Return the storage of files that are deleted from the bucket when the step with this key is committed."""
        return replace(self, folder=f"scratch/{key}/parts")


@dataclass(frozen=True)
class Context:
    """Context that `run_step` passes to a component.

    out: an empty private folder, committed as the artifact when the step returns.
    scratch: a folder kept between attempts of a step with the same key, for checkpoints; removed after the commit.
    """

    step: str
    out: Path
    scratch: Path
    seed: int = 0
    workers: int = 1
    """CPU cores of the step."""
    cluster_workers: int = 0
    """CPU cores of all nodes; 0 where the step's machine is the only one."""
    gpus: int = 0
    tracking: Tracking = field(default_factory=Tracking)
    track: Tracker = field(default_factory=NoTracker)
    """Tracker of the step's MLflow run."""
    run: str = ""
    """Raypath's id of the workflow run."""
    key: str = ""
    progress: Path | None = None
    api_keys: Path | None = None
    """Folder of the API keys of endpoints; None if there is none."""
    signing: Path | None = None
    """Folder of the key that signs registered models, and of the public keys that are trusted; None leaves the
    environment's (`registry/signing/keys.py`)."""
    predictions: Path | None = None
    """Folder of the prediction logs of endpoints."""
    serve_url: str = ""
    """Base URL of local endpoints, e.g. http://127.0.0.1:8000; "" for that of Ray Serve."""
    node: str = ""
    """Ray's id of the node that the step is restricted to, because its files are only there; "" for any node."""
    storage: ShardStorage | None = None
    """Object storage to which tasks upload the shards that they write; None if machines share a folder."""
    public_url: str = ""
    """URL of endpoints for other machines, e.g. https://0.0.0.0:8443; "" if they are local only."""

    def input(self, artifact: Artifact) -> Path:
        """Return the local folder of an input."""
        return Path(artifact.uri)

    @property
    def selector(self) -> dict[str, str]:
        """Ray label selector of the nodes that the step's tasks and actors may run on; {} for any node."""
        return {"ray.io/node-id": self.node} if self.node else {}

    @property
    def part_storage(self) -> ShardStorage | None:
        """Object storage for files that the step's tasks pass to it, which are deleted when the step is committed.

        None if the tasks share the step's folders, because they run on its node or all nodes mount them.
        """
        return self.storage.temporary(self.key or self.step) if self.storage is not None and self.node else None

    @property
    def log(self) -> logging.Logger:
        """Logger of the step. Do not log user text or secrets."""
        return logging.getLogger(f"raypath.{self.step}")

    def task_workers(self, anywhere: bool = False) -> int:
        """Return the CPU cores of the nodes that the step's tasks may run on. anywhere: they need no file of a node."""
        return self.workers if self.node and not anywhere else max(self.workers, self.cluster_workers)

    def without_tracker(self) -> Context:
        """Return a copy without the tracker, which cannot be pickled."""
        return replace(self, track=NoTracker())

    def report(self, done: float, total: float, message: str = "") -> None:
        """Report progress to the live view. Cheap: it replaces one small file."""
        if self.progress is None:
            return
        line = {"done": done, "total": total, "message": message, "time": time.time()}
        temporary = self.progress.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(json.dumps(line))
            os.replace(temporary, self.progress)
        except OSError:
            # Progress is not worth failing the step for.
            return
