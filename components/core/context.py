"""Context: all that a step is given besides its inputs."""

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
    """Where a step notes its numbers; never fails because a server is away."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def params(self, values: Mapping[str, Any]) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, source: str, context: str, rows: int) -> None: ...
    def artifact(self, path: Path, folder: str = "") -> None: ...


class NoTracker:
    """Notes nothing: for a component that is run by hand."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def params(self, values: Mapping[str, Any]) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, source: str, context: str, rows: int) -> None: ...
    def artifact(self, path: Path, folder: str = "") -> None: ...


@dataclass(frozen=True)
class Tracking:
    """Where the step's numbers go; all "" when nothing is tracked."""

    uri: str = ""
    """MLflow server."""
    experiment: str = ""
    parent: str = ""
    """Our id of the run that this step belongs to (a tag on MLflow's run)."""
    spool: str = ""
    """Folder where points wait until the server has them."""


@dataclass(frozen=True)
class Context:
    """What `run_step` hands to a component.

    out: an empty private folder; it becomes the artifact when the step returns.
    scratch: a folder kept between attempts of this very step (same key), for checkpoints; removed once committed.
    """

    step: str
    out: Path
    scratch: Path
    seed: int = 0
    workers: int = 1
    """CPU cores at hand."""
    gpus: int = 0
    tracking: Tracking = field(default_factory=Tracking)
    track: Tracker = field(default_factory=NoTracker)
    """The step's MLflow run."""
    run: str = ""
    """Our id of the workflow's run."""
    key: str = ""
    progress: Path | None = None
    api_keys: Path | None = None
    """Folder of the keys that an endpoint asks for; None where there is none."""
    predictions: Path | None = None
    """Folder of the predictions that endpoints keep, where they are asked to."""
    serve_url: str = ""
    """Where a local endpoint answers, e.g. http://127.0.0.1:8000; "" leaves it to Ray Serve."""
    node: str = ""
    """Ray's id of the node that all of the step has to stay on, since its files are on no other; "" for any."""
    public_url: str = ""
    """Where it answers other machines, e.g. https://0.0.0.0:8443; "" for nowhere."""

    def input(self, artifact: Artifact) -> Path:
        """The local folder of an input."""
        return Path(artifact.uri)

    @property
    def selector(self) -> dict[str, str]:
        """Which nodes what the step starts may run on, as Ray's label selectors have it; {} for any."""
        return {"ray.io/node-id": self.node} if self.node else {}

    @property
    def log(self) -> logging.Logger:
        """The step's logger; never given user text or secrets."""
        return logging.getLogger(f"raypath.{self.step}")

    def without_tracker(self) -> Context:
        """A copy without the tracker, which cannot travel to another process."""
        return replace(self, track=NoTracker())

    def report(self, done: float, total: float, message: str = "") -> None:
        """Tell the live view how far the step is. Cheap: one small file, written whole."""
        if self.progress is None:
            return
        line = {"done": done, "total": total, "message": message, "time": time.time()}
        mark = self.progress.with_suffix(f".{os.getpid()}")
        try:
            mark.write_text(json.dumps(line))
            os.replace(mark, self.progress)
        except OSError:
            # A view that lags is no reason to lose the work.
            return
