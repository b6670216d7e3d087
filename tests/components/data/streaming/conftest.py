"""Small files for the tests of this folder."""

from __future__ import annotations

import pytest

from raypath.components.data.streaming import parquet


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 10 rows, files of 30."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 10)
    monkeypatch.setattr(parquet, "FILE_ROWS", 30)
