"""torch.compile is used where it was measured to pay, and never tried where it could not be repaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from components.tasks import load_task
from components.tasks.bases import Card
from components.training import compiling
from components.training.job import Job
from components.training.loop import Training
from components.training.params import FinetuneParams
from tests.tiny import LABELS, rows, tiny_bert

# torch's compiler imports a part of torch that warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Chain(torch.nn.Module):
    """Many small operations on a large tensor: what a compiler joins into one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = torch.sin(x) * 0.5 + x * x * 0.1
        return x


def test_a_short_run_is_not_worth_the_trial() -> None:
    assert not compiling.worth_trying(0.8, 100)
    assert compiling.worth_trying(0.8, 10_000)


@pytest.mark.slow
def test_the_faster_of_the_two_is_taken() -> None:
    def forward(model: Any, batch: torch.Tensor) -> None:
        with torch.no_grad():
            model(batch)

    batches = [torch.rand(size) for size in (400_000, 500_000, 450_000)]
    assert compiling.faster(Chain(), batches, forward) is not None
    assert compiling.faster(torch.nn.Identity(), batches, forward) is None


def test_a_model_that_cannot_be_compiled_stays_as_it_is() -> None:
    def forward(model: Any, batch: torch.Tensor) -> None:
        if not isinstance(model, torch.nn.Identity):
            raise RuntimeError("no compiler")

    assert compiling.faster(torch.nn.Identity(), [torch.zeros(1)], forward) is None


@pytest.mark.slow
def test_a_compiled_run_learns_the_same_and_goes_on_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_bert(tmp_path / "base")
    card = Card(task="text_classification", labels=LABELS, max_length=64)

    def losses(scratch: Path) -> dict[int, float]:
        params = FinetuneParams(epochs=1, lr=1e-3, batch_tokens=256, patience=0, memory="full")
        found: dict[int, float] = {}
        job = Job(load_task(card), base, rows(160), rows(40, seed=1), params, seed=3, threads=1, scratch=scratch)
        job.on_step = lambda step, steps, figures: found.__setitem__(step, figures["loss"])
        Training(job).run()
        return found

    plain = losses(tmp_path / "plain")
    assert not (tmp_path / "plain" / compiling.DECISION).exists()
    monkeypatch.setattr(compiling, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "GAIN", 0.0)
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # traced as ever, without the minute of the C++ compiler
    compiled = losses(tmp_path / "compiled")
    assert json.loads((tmp_path / "compiled" / compiling.DECISION).read_text()) is True
    assert compiled.keys() == plain.keys()
    for step, loss in plain.items():
        assert compiled[step] == pytest.approx(loss, abs=1e-4)
