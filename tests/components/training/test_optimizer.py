"""The optimizer's settings: which weights decay, how fast each learns, how the rate rises and falls."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from raypath.components.models.trainable.freezing import freeze_encoder
from raypath.components.training.loop.optimizer import clip_gradients, groups, set_learning_rates
from raypath.components.training.params import ResolvedParams

PARAMS = ResolvedParams(lr=1e-3, head_factor=10.0, weight_decay=0.1, warmup=0.3)


@pytest.fixture
def model(base: Path) -> torch.nn.Module:
    opened: torch.nn.Module = AutoModelForSequenceClassification.from_pretrained(base)
    return opened


def test_matrices_decay_and_the_head_learns_faster(model: torch.nn.Module) -> None:
    names = {weight: name for name, weight in model.named_parameters()}
    found = {names[w]: (g["weight_decay"], g["lr"], g["peak"]) for g in groups(model, PARAMS) for w in g["params"]}
    assert found.keys() == set(names.values())
    for weight, name in names.items():
        rate = 1e-2 if "pooler" in name or name.startswith("classifier") else 1e-3
        assert found[name] == (0.1 if weight.ndim > 1 else 0.0, rate, rate), name


def test_frozen_weights_are_in_no_group(model: torch.nn.Module) -> None:
    freeze_encoder(model)
    names = {weight: name for name, weight in model.named_parameters()}
    trained = {names[weight] for group in groups(model, PARAMS) for weight in group["params"]}
    assert trained == {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("warmup", "wanted"),
    [
        (0.3, [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (0.0, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (0.9, [1 / 9, 2 / 9, 3 / 9, 4 / 9, 5 / 9, 6 / 9, 7 / 9, 8 / 9, 1, 1 / 2]),
    ],
)
def test_the_rate_rises_over_the_warm_up_and_falls_to_0(
    model: torch.nn.Module, warmup: float, wanted: list[float]
) -> None:
    params = PARAMS.override({"warmup": warmup})
    optimizer = torch.optim.AdamW(groups(model, params))
    for step, share in enumerate(wanted):
        assert set_learning_rates(optimizer, params, step, 10) == pytest.approx(1e-3 * share)
        rates = {group["lr"] for group in optimizer.param_groups}
        assert sorted(rates) == pytest.approx([1e-3 * share, 1e-2 * share])


@pytest.mark.parametrize("most", [0.5, 1e6])
def test_gradients_are_clipped_on_the_way_through_adamw(model: torch.nn.Module, most: float) -> None:
    twin = copy.deepcopy(model)
    ids = torch.tensor([[1, 5, 6, 2]])
    norms = []
    for each, folded in ((model, True), (twin, False)):
        optimizer = torch.optim.AdamW(groups(each, PARAMS), fused=True)
        for _ in range(3):
            each(input_ids=ids, labels=torch.tensor([1])).loss.mul(50).backward()
            norms.append(float(clip_gradients(each, optimizer, most, sharded=not folded)))
            optimizer.step()
            optimizer.zero_grad()
    assert norms[:3] == pytest.approx(norms[3:], rel=1e-3)
    assert (norms[0] > most) == (most == 0.5)
    for name, weight in twin.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), weight, atol=1e-4, rtol=1e-3, msg=name)
