"""Aliases, files and tags in the MLflow model registry; tracking/tags.py has the names of tags.

Facts of a version that people do not read in MLflow's list of tags are one tag of JSON, signed with the others. A
version that an earlier Raypath registered has a tag for each fact, and reads the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from raypath.components.tracking.tags import DETAILS, KEY, METRIC_PREFIX

CHAMPION, CHALLENGER = "champion", "challenger"

METRICS_FILE = "metrics.json"
"""File beside the weights: metrics of the version on its own test split."""


def pack(tags: Mapping[str, str], metric: str) -> dict[str, str]:
    """Return the tags of a version: its key, the metric that decides, and all others as JSON."""
    shown = {KEY, f"{METRIC_PREFIX}{metric}"}
    rest = {name: text for name, text in tags.items() if name not in shown and text}
    kept = {name: text for name, text in tags.items() if name in shown}
    return kept | {DETAILS: json.dumps(rest)}


def unpack(tags: Mapping[str, str]) -> dict[str, str]:
    """Return a tag for each fact. A tag that is no JSON object of texts is left out."""
    found = {name: text for name, text in tags.items() if name != DETAILS}
    try:
        rest = json.loads(tags.get(DETAILS, "{}"))
    except (ValueError, RecursionError):
        return found
    return {str(name): str(text) for name, text in rest.items()} | found if isinstance(rest, dict) else found
