"""Golden answers: what is recorded is found again, and another model or a broken one is rejected."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.generation import golden_answers
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from tests.byte_llama import tiny_chat


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_chat(tmp_path_factory.mktemp("golden"), initializer_range=0.3)
    golden_answers.record(folder)
    return folder


def _examples(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "examples.json").read_text())
    return found


def test_the_same_model_passes_in_float32_and_bf16(folder: Path) -> None:
    assert len(_examples(folder)["generation"]) == len(golden_answers.PROMPTS)
    for precision in ("fp32", "bf16"):
        engine = TransformersEngine.open(folder, precision=precision)
        golden_answers.check_answers(folder, engine, engine.precision)


def test_another_model_is_rejected(folder: Path, tmp_path: Path) -> None:
    other = TransformersEngine.open(tiny_chat(tmp_path / "other", initializer_range=0.3, hidden_size=32))
    for precision in ("fp32", "bf16"):
        with pytest.raises(DataError, match=r"its answer to example \d is off by [\d.]+ nats; at most"):
            golden_answers.check_answers(folder, other, precision)


@pytest.mark.parametrize(
    ("ids", "logprobs", "off"),
    [
        ([5, 6], [-1.0, -2.0], 0.0),
        ([5, 6], [-1.0, -2.5], 0.5),
        ([5, 7], [-1.0, -9.0], 0.0),  # a token that the second one was near to, and what follows it
        ([4, 6], [-1.0, -2.0], 3.0),  # a token that was far ahead
        ([], [], 3.0),
        ([5, 6], [-1.0, math.nan], math.nan),
    ],
)
def test_differences_count_up_to_a_token_that_is_another(ids: list[int], logprobs: list[float], off: float) -> None:
    known = {"ids": [5, 6], "logprobs": [-1.0, -2.0], "leads": [3.0, 0.2]}
    assert golden_answers._difference(known, ids, logprobs, 0.75) == pytest.approx(off, nan_ok=True)


def test_a_corrupt_file_is_rejected_and_a_missing_one_is_not_checked(folder: Path, tmp_path: Path) -> None:
    engine = TransformersEngine.open(folder)
    golden_answers.check_answers(tmp_path, engine, "fp32")
    (tmp_path / "examples.json").write_text("{")
    with pytest.raises(DataError, match=r"its examples\.json is corrupt"):
        golden_answers.check_answers(tmp_path, engine, "fp32")
