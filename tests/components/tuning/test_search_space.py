"""The search space: choices and ranges of ResolvedParams, whole numbers where a setting is one, grids."""

import pytest

from raypath.components.training.params import ResolvedParams
from raypath.components.tuning.search_space import Dimension, Span, dimensions, grid, own_values


def test_ranges_and_choices_take_the_types_of_their_settings() -> None:
    lr, factor, tokens, frozen, dropout, focal = dimensions(
        {"lr": (1e-5, 1e-3), "weight_decay": (0.01, 0.01)},
        {
            "head_factor": (1, 30),
            "batch_tokens": Span(low=512, high=4096),
            "frozen_layers": (0, 2.0),
            "dropout": (None, 0.1),
            "objective.focal": (0, 2),
        },
    )
    assert (lr.low, lr.high, lr.integer, lr.choices) == (1e-5, 1e-3, False, ())
    assert factor.choices == (1.0, 30.0)
    assert isinstance(factor.choices[0], float)
    assert tokens.integer
    assert isinstance(frozen.choices[1], int)
    assert dropout.choices == (None, 0.1)
    assert focal.name == "objective.focal"
    assert ResolvedParams().override({focal.name: focal.choices[1]}).objective.focal == 2.0


def test_a_choice_takes_the_place_of_a_range() -> None:
    (only,) = dimensions({"lr": (1e-5, 1e-3)}, {"lr": (1e-4, 2e-4)})
    assert only.choices == (1e-4, 2e-4)


def test_a_grid_is_the_product_and_a_capped_one_a_part_of_it() -> None:
    searched = [Dimension("lr", low=1e-5, high=1e-3), Dimension("frozen_layers", choices=(0, 2, 4))]
    every, size = grid(searched, 3, 100, 0)
    assert size == len(every) == 9
    assert [values["lr"] for values in every[::3]] == [1e-5, pytest.approx(1e-4), 1e-3]
    some, size = grid(searched, 3, 4, 0)
    assert size == 9
    assert len(some) == 4
    assert all(values in every for values in some)
    assert some == grid(searched, 3, 4, 0)[0] != grid(searched, 3, 4, 1)[0]
    assert Dimension("batch_tokens", low=1, high=4, integer=True).points(5) == [1, 2, 3, 4]


def test_the_settings_as_they_are_are_known() -> None:
    lr = Dimension("lr", low=1e-5, high=1e-3)
    assert own_values(ResolvedParams(lr=2e-4), [lr]) == {"lr": 2e-4}
    assert own_values(ResolvedParams(lr=2e-3), [lr]) is None
    assert lr.clip(5.0) == 1e-3
    tokens = Dimension("batch_tokens", low=512, high=4096, integer=True)
    assert [tokens.clip(value) for value in (100, 600, 9_000)] == [512, 600, 4096]
    assert isinstance(tokens.clip(9_000), int)
