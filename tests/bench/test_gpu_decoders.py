"""The decoders' part of the GPU benchmark in its form for a CPU: checks find what is wrong, speeds are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.gpu.decoders import checks, report, speed
from tests.bench.gpu.decoders.base import SHAPES, make_rows, operations, write_base

TINY = SHAPES["tiny"]
IN_A_GROUP = "fsdp2"
"""Makes a process group, which a process of its own is for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("base")
    write_base(TINY, "cpu", place)
    return place


@pytest.mark.parametrize("name", [name for name in checks.names() if name != IN_A_GROUP])
def test_every_check_passes(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "STEPS", 4)
    found = checks._one(getattr(checks.Checks(TINY, "cpu", folder), name))
    assert found["ok"], found
    assert "skipped" in found or 0 <= found["value"] <= found["most"]


def test_a_check_finds_attention_that_leaves_its_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.models.decoder import packed_decoder
    from raypath.components.models.decoder.row_layout import row_layout

    def joined(starts: Any, shared: Any = None, rest: int = 0) -> Any:
        return row_layout(starts[[0, -1]] if len(starts) > 4 else starts, shared, rest)

    monkeypatch.setattr(packed_decoder, "row_layout", joined)
    monkeypatch.setattr(packed_decoder, "_agrees", lambda *_: True)
    found = checks._one(checks.Checks(TINY, "cpu", folder).rows_do_not_see_each_other)
    assert not found["ok"]


def test_what_fails_and_what_is_missing_is_said() -> None:
    def broken() -> tuple[float, float]:
        raise RuntimeError("no kernel")

    def absent() -> tuple[float, float]:
        raise checks.Skip("extra qlora is not installed")

    assert checks._one(broken) == {"ok": False, "failed": "RuntimeError: no kernel"}
    assert checks._one(absent) == {"ok": True, "skipped": "extra qlora is not installed"}
    assert checks._one(lambda: (float("nan"), 1.0))["ok"] is False


@pytest.mark.parametrize("way", ["full", "lora"])
def test_a_training_is_timed(way: str, folder: Path) -> None:
    if speed.missing(way):
        pytest.skip(f"{speed.missing(way)} is not installed")
    found = speed.measure(TINY, "cpu", folder, way, 3)
    assert found["steps"] == 3
    assert found["recompilations"] == 0
    assert 3 * 0.7 * TINY.tokens < found["tokens"] <= 3 * TINY.tokens
    assert (found["operations"] > 0) == (way == "full")


def test_operations_are_those_of_the_matrices() -> None:
    tokens = make_rows(TINY, 2_000).lengths
    weights = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    wanted = 6 * tokens.sum() * (weights + 600 * 64 / 2) + 6 * 2 * 64 * (tokens.astype(float) ** 2).sum()
    assert operations(TINY, tokens) == pytest.approx(wanted)


def test_what_was_found_is_saved_as_it_comes_and_shown(tmp_path: Path) -> None:
    calls, saved = [], []
    figures = {"steps": 4, "seconds": 2.0, "rows": 8, "tokens": 800, "operations": 1e12, "losses": [2.0, 1.0]}

    def run(words: list[str], seconds: float) -> tuple[int, str]:
        kind = words[0].rpartition(".")[2]
        calls.append((kind, *words[4:5]) if kind == "speed" else (kind,))
        if kind == "checks":
            Path(words[-1]).write_text(json.dumps({"export": {"ok": True, "value": 0.1, "most": 0.2}}))
        if kind == "speed" and words[4] == "full, compiled":
            return 1, "long\nlines\nRuntimeError: no compiler"
        if kind == "speed":
            half = figures | {"tokens": 400} if words[4].startswith("trl") else figures
            Path(words[-1]).write_text(json.dumps(half | {"memory": 1 << 20, "recompilations": 0}))
        return 0, ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "missing", lambda way: [])
        found = report.measure_decoders("cuda", 4, run, lambda: 100.0, 1e13, lambda one: saved.append(json.dumps(one)))
    assert [call[0] for call in calls] == ["base", "base", "checks", *["speed"] * len(speed.WAYS)]
    assert len(saved) == 1 + len(speed.WAYS)
    text = report.tables(found)
    assert "| export | 0.1 | 0.2 | ok |" in text
    assert "| full | 400 | 2.00 | 500.0 | 5.0% | 0.1% | 1 | 0 |" in text
    assert "| full, compiled | RuntimeError: no compiler |" in text
    assert not report.is_failed(found)
    found["checks"]["export"]["ok"] = False
    assert report.is_failed(found)
    assert report.is_failed({"checks": {"export": {"ok": True}}, "speeds": {"full": {"failed": "no time left"}}})
