"""Stored specs of endpoints: those of another version of Raypath."""

from __future__ import annotations

import json

import pytest

from raypath.components import PlatformError
from raypath.components.serving.control.spec_store import parse_spec


def test_a_spec_of_another_version_is_one_line() -> None:
    stored = json.dumps({"name": "topics", "serve": {"also": []}}).encode()
    with pytest.raises(PlatformError, match="topics was deployed by another version of Raypath; run its"):
        parse_spec("topics", stored)
