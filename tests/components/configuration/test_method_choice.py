"""Methods for few rows: where they are compared, with which settings, and which one is taken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components import Context
from raypath.components.configuration.facts import DataFacts
from raypath.components.configuration.methods import choose_for_few_rows
from raypath.components.configuration.rules import Choice, choose
from raypath.components.models.metadata import ModelMetadata
from raypath.components.training.few_shot import choose_method
from raypath.components.training.params import FinetuneParams, ResolvedParams

MakeContext = Callable[..., Context]


class _Rows:
    def rows(self, max_length: int) -> str:
        return f"rows of {max_length} tokens"


@pytest.fixture
def compared(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Choice, list[Any]]]:
    """`compared(settings, kind=..., best=...)`: the choice where `best` scores best, and what was compared."""

    def run(settings: dict[str, Any], kind: str = "string", best: str = "full", rows: int = 40) -> Any:
        calls: list[Any] = []

        def compare(candidates: dict[str, ResolvedParams], task: Any, folder: Path, *rest: Any) -> Any:
            calls.append((candidates, *rest))
            return type("Best", (), {"name": best, "reason": f"method={best} is best"})

        monkeypatch.setattr(choose_method, "choose_method", compare)
        params = FinetuneParams(base="x").override(settings)
        facts = DataFacts(rows, 4, (rows // 2,) * 2, np.full(9, 20), 512, 2)
        values = choose(params, facts, 64).values
        resolved = ResolvedParams.model_validate_json(params.override(values).model_dump_json())
        metadata = ModelMetadata(
            task="multi_label" if kind == "set" else "text_classification",
            labels=("a", "b"),
            label_kind=kind,
            max_length=64,  # type: ignore[arg-type]
        )
        ctx, sample = make_context("configure"), _Rows()
        choice = choose_for_few_rows(ctx, params, resolved, facts, sample, (Path("base"), metadata), 64)  # type: ignore[arg-type]
        return choice, calls

    return run


def test_the_best_method_is_taken_with_its_settings(compared: Callable[..., Any]) -> None:
    choice, [(candidates, rows, seed, threads, limit)] = compared({}, best="contrastive")
    assert choice == Choice(
        {"method": "contrastive", "epochs": 2, "lr": 1e-4, "batch_tokens": 2048, "patience": 0},
        ("method=contrastive is best",),
    )
    assert list(candidates) == ["full", "contrastive", "linear_probe"]
    assert [each.method for each in candidates.values()] == ["full", "contrastive", "linear_probe"]
    assert (rows, seed, threads, limit) == ("rows of 64 tokens", 0, 2, 60.0)
    assert logging.getLogger("raypath.cross_validation").level == logging.WARNING
    assert compared({}, best="linear_probe")[0].values == {"method": "linear_probe"}
    assert compared({}, best="full")[0] == Choice({}, ("method=full is best",))


def test_settings_that_are_given_stay(compared: Callable[..., Any]) -> None:
    choice, [(candidates, *_)] = compared({"epochs": 7, "lr": 1e-3}, best="contrastive")
    assert choice.values == {"method": "contrastive", "batch_tokens": 2048, "patience": 0}
    assert {each.epochs for each in candidates.values()} == {7}


@pytest.mark.parametrize(("minutes", "limit"), [(1.0, 30.0), (2.0, 60.0), (9.0, 60.0)])
def test_half_of_the_budget_is_for_the_comparison(compared: Callable[..., Any], minutes: float, limit: float) -> None:
    _, [(*_, found)] = compared({"minutes": minutes})
    assert found == limit


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"method": "full"}, {}),
        ({"objective.focal": 2.0}, {}),
        ({"workers": 2}, {}),
        ({}, {"kind": "set"}),
        ({}, {"rows": 129}),
        ({}, {"rows": 0}),
    ],
)
def test_where_nothing_is_compared(
    compared: Callable[..., Any], settings: dict[str, Any], more: dict[str, Any]
) -> None:
    assert compared(settings, **more) == (Choice(), [])
