"""Weights that models of one process have in common are held once, and answers stay the same to the bit."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.inference.engine import Engine
from tests.tiny_classifier import tiny_classifier

TOKENS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, 8, 8, 8, 8, 8, 3]]


@pytest.fixture
def table() -> WeightTable:
    return WeightTable()


@pytest.fixture
def heads(tmp_path: Path) -> list[Path]:
    """Two heads on one encoder."""
    from safetensors.torch import load_file, save_file

    for name in ("one", "two"):
        tiny_classifier(tmp_path / name)
    path = tmp_path / "two" / "model.safetensors"
    weights = load_file(path)
    weights["classifier.weight"] = weights["classifier.weight"] * -2
    save_file(weights, path, metadata={"format": "pt"})
    return [tmp_path / "one", tmp_path / "two"]


def _weights(engine: Engine) -> dict[str, Any]:
    return {name: weight.data_ptr() for name, weight in engine.model.named_parameters()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_heads_hold_one_encoder_and_answer_as_alone(heads: list[Path], precision: Any, table: WeightTable) -> None:
    wanted = []
    for folder in heads:
        engine = Engine(folder, precision=precision, weights=table)
        wanted.append(engine.record(TOKENS))
        del engine
        gc.collect()
        assert not len(table), "a weight outlives its models"
    one, two = (Engine(folder, precision=precision, weights=table) for folder in heads)
    for engine, answers in zip((one, two), wanted, strict=True):
        np.testing.assert_array_equal(engine.record(TOKENS), answers)
    assert not np.array_equal(*wanted)
    first, second = _weights(one), _weights(two)
    assert {name for name in first if first[name] != second[name]} == {"classifier.weight"}


def test_what_one_model_leaves_the_other_keeps(heads: list[Path], table: WeightTable) -> None:
    one, two = (Engine(folder, precision="fp32", weights=table) for folder in heads)
    wanted = two.record(TOKENS)
    del one
    gc.collect()
    np.testing.assert_array_equal(two.record(TOKENS), wanted)
    assert len(table) == len(_weights(two))
