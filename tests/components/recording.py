"""What a step logs to MLflow and reports as progress, in order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.context import NoTracker


class Recorder(NoTracker):
    """Tracker that keeps what a step logs: metrics by name and step, the rest in order."""

    def __init__(self) -> None:
        self.points: dict[str, dict[int, float]] = {}
        self.settings: dict[str, Any] = {}
        self.tagged: dict[str, str] = {}
        self.datasets: list[tuple[str, str, str, str, int]] = []
        self.files: list[tuple[str, str]] = []

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        for name, value in values.items():
            self.points.setdefault(name, {})[step] = value

    def params(self, values: Mapping[str, Any]) -> None:
        self.settings |= values

    def tags(self, values: Mapping[str, str]) -> None:
        self.tagged |= values

    def dataset(self, name: str, digest: str, source: str, context: str, rows: int) -> None:
        self.datasets.append((name, digest, source, context, rows))

    def artifact(self, path: Path, folder: str = "") -> None:
        self.files.append((folder, path.name))
