"""Anchors of the audit log in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypath.deploy.store.audit import anchors, log
from raypath.deploy.store.audit.verify import verify


def test_anchors_are_copied_once_and_verified(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(anchors.ELSEWHERE, address)
    log.record(tmp_path, "key.create", "anna")
    log.anchor_now(tmp_path)
    log.record(tmp_path, "key.create", "ben")
    log.anchor_now(tmp_path)
    (tmp_path / "audit" / "anchors.jsonl").unlink()
    found = verify(tmp_path)
    assert (found.anchors, found.anchored, found.problems) == (2, 2, [])
