"""The GPU benchmark: all variants train on the same rows alike, batches hold what they should, the table is right."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tests.bench.gpu import __main__ as gpu
from tests.bench.gpu import batches
from tests.bench.gpu.child import operations
from tests.bench.gpu.packed import PackedClassifier
from tests.bench.gpu.shapes import CPU_SHAPES, Rows, build, make_rows, packed_steps
from tests.bench.gpu.variants import VARIANTS, Stepper, Variant

SHAPE = CPU_SHAPES["tiny"]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return make_rows(SHAPE, 60)


def _gradients(variant: Variant, batch: batches.Batch, monkeypatch: pytest.MonkeyPatch) -> tuple[float, torch.Tensor]:
    """Loss and gradients of all weights, in fp32."""
    monkeypatch.setenv("RAYPATH_PRECISION", "fp32")
    stepper = Stepper(variant, build(SHAPE), "cpu")
    stepper.bf16 = False
    loss = stepper.loss(batch.tensors)
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in stepper.model.parameters() if p.grad is not None])


def test_packed_and_padded_rows_have_the_same_loss_and_gradients(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = np.arange(6)
    total = int(rows.lengths[chosen].sum()) + 40
    padded = _gradients(Variant(), batches.pad(rows, chosen, int(rows.lengths[chosen].max()), 6), monkeypatch)
    wider = _gradients(Variant(), batches.pad(rows, chosen, 160, 9), monkeypatch)
    packed = _gradients(Variant(packed=True), batches.pack(rows, chosen, 9, total), monkeypatch)
    for loss, gradients in (wider, packed):
        assert loss == pytest.approx(padded[0], abs=1e-5)
        assert torch.allclose(gradients, padded[1], atol=1e-5)
    other = _gradients(Variant(packed=True), batches.pack(rows, chosen + 6, 9, total + 300), monkeypatch)
    assert not torch.allclose(other[1], padded[1], atol=1e-3)


def test_a_row_does_not_see_the_rows_beside_it(rows: Rows) -> None:
    model = build(SHAPE).eval()
    alone, beside = (batches.pack(rows, np.array(chosen), 4, 500).tensors for chosen in ([3], [3, 5, 8]))
    with torch.no_grad():
        found = [PackedClassifier(model, 512)(t["ids"], t["positions"], t["starts"])[0] for t in (alone, beside)]
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("name", ["few shapes", "packed"])
def test_every_row_is_in_the_batches_of_an_epoch_once(name: str, rows: Rows) -> None:
    made, seen = VARIANTS[name].batches(SHAPE, rows), 0
    shapes = set()
    while seen < 60:
        batch = next(made)
        seen += batch.rows
        assert float(batch.tensors["weights"].sum()) == batch.rows
        shapes.add(tuple(batch.tensors["input_ids" if name == "few shapes" else "ids"].shape))
    assert seen == 60
    assert len(shapes) == 1 if name == "packed" else shapes <= {(512 // width, width) for width in (32, 64, 96, 128)}


def test_packed_steps_waste_little(rows: Rows) -> None:
    steps = list(itertools.islice(packed_steps(rows, 512, 8), 9))
    used = [int(rows.lengths[step].sum()) for step in steps]
    assert max(used) <= 512
    assert min(used) > 512 - 128 or min(map(len, steps)) == 8


@pytest.mark.parametrize("name", [name for name, v in VARIANTS.items() if not v.compiled or (v.packed and v.graph)])
def test_every_variant_trains(name: str, rows: Rows) -> None:
    stepper = Stepper(VARIANTS[name], build(SHAPE), "cpu")
    batch = next(VARIANTS[name].batches(SHAPE, rows))
    losses = [float(stepper.step(batch)) for _ in range(4)]
    assert losses[-1] < losses[0]


def test_rows_of_padding_are_not_longer_than_attention_allows_for(rows: Rows) -> None:
    with pytest.raises(ValueError, match="for 1 rows of padding"):
        batches.pack(rows, np.arange(3), 4, 900)


def test_operations_grow_with_the_rows() -> None:
    few, many = (operations(SHAPE, {"rows": n, "tokens": 50 * n, "pairs": 2_500 * n}) for n in (10, 20))
    assert many == 2 * few > 0


def test_the_table_has_ratios_to_the_step_of_today() -> None:
    done = {"samples/s": 20, "ms/step": 1.0, "of peak": "5%", "ready, s": 1.0, "first loss": 1.6, "last loss": 1.5}
    lines: list[dict[str, Any]] = [
        {"shape": "s", "variant": "eager", **done, "GPU MiB": 1},
        {"shape": "s", "variant": "packed", **done, "samples/s": 50, "GPU MiB": 2},
        {"shape": "s", "variant": "few shapes", "failed": "stopped after 1 s"},
    ]
    text = gpu.table(lines)
    assert "| s | packed | 50 | 2.50 | 1.0 | 5% |" in text
    assert "| s | few shapes | stopped after 1 s |" in text


def test_what_does_not_end_in_time_is_stopped_and_said() -> None:
    assert gpu.run(["http.server", "--bind", "127.0.0.1", "0"], 1.0) == (124, "stopped after 1 s")
    assert gpu.run(["this"], 60)[0] == 0
    assert gpu.Deadline(0.0).left(5) <= 0
    assert set(gpu.variant_order()) == set(VARIANTS)
    assert len(gpu.variant_order()) == len(VARIANTS)
