"""The steps of DPO have the losses of TRL's DPOTrainer: same pairs, order, batches, optimizer and rates, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components.training.batches.reference_scores import ReferenceScores, add_scores
from raypath.components.training.batches.token_dataset import in_memory
from tests.bench.against_trl import Trial, train_raypath
from tests.bench.clock import Clock
from tests.bench.preference_training import BETA, job_of, tokens_of, train_trl_on
from tests.tiny_decoders import decoder_folder
from tests.tiny_pairs import pair_table

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(("objective", "loss_type"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_each_step_has_the_loss_of_trl(base: Path, objective: str, loss_type: str) -> None:
    pytest.importorskip("trl", reason="group bench is not installed")
    table = pair_table(64)
    rows = in_memory(add_scores(table, ReferenceScores(base, 1, "fp32", 64).of(table)))
    settings: dict[str, Any] = {"batch_tokens": 200, "precision": "fp32", "lr": 3e-3}
    settings["objective.preference"] = objective
    ours, theirs = (Trial(base, 0, 1, Clock(0, 0)) for _ in range(2))
    job, steps = job_of(ours, rows, **settings)
    train_raypath(ours, job, steps, tokens_of(table))
    job, steps = job_of(theirs, rows, **settings)
    train_trl_on(theirs, table, job, steps, loss_type=[loss_type], beta=BETA)
    assert len(ours.losses) == len(theirs.losses) >= 6
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)
    assert ours.losses[-1] < 0.9 * ours.losses[0], "the losses fall"
