"""Parts of the benchmarks of private training and of encrypted predictions that decide what their figures mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench import private_training
from tests.bench.encrypted_predictions import agreement


def test_scores_are_compared_by_class_and_rows_without_a_clear_one_are_counted() -> None:
    plain = np.array([[1.0, 2.0], [3.0, 1.0], [1.0, 1.00005]])
    found = agreement(plain, plain + np.array([[0.0, 0.0], [0.0, 0.0], [1e-4, 0.0]]))
    assert found == {"argmax equal": 2, "close rows": 1, "largest error": pytest.approx(1e-4)}


def test_settings_are_chosen_by_validation_rows_and_only_the_chosen_model_is_tested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tested: list[Path] = []
    valid = iter([0.6, 0.9, 0.7, 0.9, 0.5, 0.4])

    def trained(folder: Path, name: str, *_: Any) -> tuple[Path, dict[str, float]]:
        return tmp_path / name, {"valid": next(valid), "seconds": 1.0}

    def accuracy(folder: Path, _: Any) -> float:
        tested.append(folder)
        return 0.8

    def attacked(folder: Path, *_: Any) -> dict[str, float]:
        return {"membership_auc": 0.5, "membership_auc_low": 0.4}

    monkeypatch.setattr(private_training, "trained", trained)
    monkeypatch.setattr(private_training, "attacked", attacked)
    monkeypatch.setattr(private_training, "accuracy", accuracy)
    found = private_training.measured(tmp_path, None, "head", 8.0)  # type: ignore[arg-type]
    assert [path.name for path in tested] == [f"{tmp_path.name}-1"], "the first of two equal ones"
    assert (found["valid"], found["test"]) == (0.9, 0.8)
    assert found["settings"] == private_training.candidates("head", True)[1]
    line = {"set": "reviews", "method": "head", "bound": 8.0, "rows": 3_000, **found}
    assert private_training.table([line])[0]["accuracy"] == "0.800"
