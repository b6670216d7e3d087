"""Exports are recorded in the audit log of a home, here one of the test's own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path_factory.mktemp("home")))
