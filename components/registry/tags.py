"""Names of aliases, tags and files in the MLflow model registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


CHAMPION, CHALLENGER = "champion", "challenger"


PREVIOUS = "raypath.previous_champion"


REJECTED = "raypath.rejected"
"""Tag of a version: why a replica did not take it, until it is made the champion again."""


METRIC = "raypath.metric."


METRICS_FILE = "metrics.json"
"""Beside the weights: the figures of the version's own test part."""
