"""The choice of a method: by scores of rows that were held out, within its time, and said in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from raypath.components.core.errors import DataError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.few_shot.choose_method import _best, choose_method, split_folds
from raypath.components.training.params import ResolvedParams
from tests.tiny import LABELS, rows

CANDIDATES = {
    "full": ResolvedParams(epochs=1, lr=1e-6, memory="full"),
    "linear_probe": ResolvedParams(method="linear_probe", memory="full"),
}


def _choose(base: Path, **more: float):
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    return choose_method(CANDIDATES, task, base, rows(32), seed=1, threads=1, **more)


def test_the_method_that_learns_is_chosen_and_the_reason_is_a_sentence(base: Path) -> None:
    choice = _choose(base, folds=2)
    assert choice.name == "linear_probe"
    assert choice.params is CANDIDATES["linear_probe"]
    assert {name: len(found) for name, found in choice.scores.items()} == {"full": 2, "linear_probe": 2}
    assert min(choice.scores["linear_probe"]) > max(choice.scores["full"])
    assert choice.reason.startswith("linear_probe by cross-validation on the training rows, mean macro_f1: full 0.")
    assert choice.scores == _choose(base, folds=2).scores


def test_without_time_the_first_has_one_fold_and_the_others_are_named(base: Path) -> None:
    choice = _choose(base, seconds=0.0)
    assert choice.name == "full"
    assert [len(found) for found in choice.scores.values()] == [1, 0]
    assert choice.reason.endswith("(1 fold); no time for linear_probe")


def test_folds_are_stratified_and_a_single_row_is_always_in_train() -> None:
    targets = np.array([0] * 8 + [1] * 9 + [2])
    seen = []
    for train, held_out in split_folds(targets, 4, seed=0):
        assert sorted([*train, *held_out]) == list(range(18))
        assert np.bincount(targets[held_out], minlength=3)[[0, 2]].tolist() == [2, 0]
        seen += held_out.tolist()
    assert sorted(seen) == list(range(17))
    with pytest.raises(DataError, match="no class has two rows"):
        list(split_folds(np.arange(5), 4, seed=0))


def test_a_later_candidate_has_to_be_better_by_more_than_chance() -> None:
    assert _best({"a": [0.5, 0.7, 0.6], "b": [0.6, 0.6, 0.63]}) == "a"
    assert _best({"a": [0.5, 0.7, 0.6], "b": [0.6, 0.8, 0.71]}) == "b"
    assert _best({"a": [0.5], "b": []}) == "a"
