"""Names of aliases and files in the MLflow model registry; tracking/tags.py has the names of tags."""

from __future__ import annotations

CHAMPION, CHALLENGER = "champion", "challenger"

METRICS_FILE = "metrics.json"
"""File beside the weights: metrics of the version on its own test split."""
