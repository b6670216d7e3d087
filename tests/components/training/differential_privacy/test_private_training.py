"""Private training as a whole: resumed, with several processes, of groups, with wrong settings; and its records."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components import Context, Dataset, Model
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata, PrivacyRecord, write_metadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.differential_privacy.budget import default_batch, plan, spend
from raypath.components.training.differential_privacy.checks import check_private
from raypath.components.training.differential_privacy.ledger import ledger_folder
from raypath.components.training.differential_privacy.units import Units
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import FinetuneParams, ResolvedParams
from tests.forks import forks
from tests.tiny import LABELS, rows

PARAMS = ResolvedParams(
    epochs=3, lr=1e-3, lora=2, patience=0, frozen_layers=0, checkpoint_seconds=0.0, dropout=0.1, precision="fp32"
).override({"privacy.noise_multiplier": 1.0, "privacy.batch_rows": 32, "memory": "full"})
METADATA = ModelMetadata(task="text_classification", labels=LABELS, max_length=64)
RECORD = plan(PARAMS, 100)
Weights = dict[str, torch.Tensor]


class Killed(BaseException):
    """The process is gone."""


def _training(base: Path, scratch: Path | None, dropout: float = 0.1, **more: Any) -> Training:
    task, params = load_task(METADATA.model_copy(update={"privacy": RECORD})), PARAMS.override({"dropout": dropout})
    return start_training(
        TrainingJob(task, base, rows(100), rows(40, seed=1), params, 3, threads=1, scratch=scratch, **more)
    )


def _trained(training: Training) -> Weights:
    training.run()
    return {name: weight.detach().clone() for name, weight in training.prepared.trained().items()}


def _kill_at(step: int) -> Callable[..., None]:
    def kill(done: int, *_: Any) -> None:
        if done == step:
            raise Killed

    return kill


def test_a_killed_training_resumes_to_the_same_weights_and_another_one_has_others(base: Path, tmp_path: Path) -> None:
    training = _training(base, tmp_path / "cut", on_step=_kill_at(5))
    with pytest.raises(Killed):
        training.run()
    key = (tmp_path / "cut" / "privacy.key").read_text()
    resumed = _training(base, tmp_path / "cut")
    assert resumed.resume_point is not None
    one = _trained(resumed)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "privacy.key").write_text(key)
    whole, other = _trained(_training(base, tmp_path / "whole")), _trained(_training(base, None))
    assert all(torch.equal(weight, whole[name]) for name, weight in one.items())
    # The same seed, another key: the noise is not that of the seed.
    assert not all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_it_takes_the_planned_steps_keeps_the_last_weights_and_reports_no_loss(base: Path) -> None:
    steps: list[dict[str, float]] = []
    passes: list[int] = []
    training = _training(
        base, None, on_step=lambda n, of, values: steps.append(values), on_evaluation=lambda n, _: passes.append(n)
    )
    last = _trained(training)
    assert len(steps) == RECORD.events[-1].steps == round(3 / 0.32)
    assert passes == [len(steps)]
    assert {values["loss"] for values in steps} == {0.0}
    assert "order" not in training.facts()
    assert all(torch.equal(weight, last[name]) for name, weight in training.prepared.trained().items())


def test_the_noise_of_a_step_has_the_planned_scale(base: Path) -> None:
    training = _training(base, None)
    assert training.private is not None
    seen = []
    for step in range(20):
        loss, norm = training.private.backward(step, np.zeros(0, np.int64))
        seen.append(
            torch.cat([weight.grad.flatten() for weight in training.private.weights if weight.grad is not None])
        )
        assert (float(loss), float(norm)) == (0.0, float(seen[-1].norm()))
    # No row was drawn: only noise is left, divided by the expected number of rows.
    assert float(torch.cat(seen).std()) == pytest.approx(1.0 / 32, rel=0.05)


def _train_as(rank: int, ranks: int, base: Path, place: Path) -> None:
    import torch.distributed as dist
    from safetensors.torch import save_file

    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks)
    training = _training(base, place / "scratch", dropout=0.0)
    save_file(_trained(training), place / f"rank-{rank}.safetensors")
    del training
    dist.destroy_process_group()
    os._exit(0)


def test_two_processes_train_the_model_of_one(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    processes = [forks().Process(target=_train_as, args=(rank, 2, base, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    one, other = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(2))
    (tmp_path / "alone").mkdir()
    (tmp_path / "scratch" / "privacy.key").rename(tmp_path / "alone" / "privacy.key")
    alone = _trained(_training(base, tmp_path / "alone", dropout=0.0))
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    for name, weight in one.items():
        torch.testing.assert_close(weight, alone[name], rtol=1e-3, atol=1e-5)


def test_rows_of_a_group_are_one_unit(base: Path) -> None:
    units = Units.groups([f"person {n % 20}" for n in range(100)], most=3)
    record = plan(PARAMS.override({"privacy.unit": "group", "privacy.rows_per_group": 3, "privacy.batch_rows": 8}), 20)
    assert (record.units, record.rows_per_unit, record.events[-1].sampling_rate) == (20, 3, 0.4)
    task = load_task(METADATA.model_copy(update={"privacy": record}))
    job = TrainingJob(task, base, rows(100), rows(40, seed=1), PARAMS, 3, threads=1, units=units)
    training = start_training(job)
    drawn = training.epochs[0][0]
    assert len(drawn) % 3 == 0
    assert (units.of_row[drawn] >= 0).all()
    assert training.private is not None
    assert training.private.expected == pytest.approx(8)
    training.run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"privacy.clip": 2.0, "privacy.epsilon": None}, "finetune.privacy has no bound"),
        ({"task": "text_generation", "lora": 8}, "differential privacy is for encoders with a head"),
        ({"method": "full"}, "not all weights.*finetune.method=head or finetune.lora=8"),
        ({"method": "linear_probe"}, "trains a head or adapters"),
        ({"method": "head", "lora": 8}, "has no adapters"),
        ({"lora": 8, "dora": True}, "finetune.dora does not go with finetune.privacy"),
        ({"patience": 2}, "the last weights are kept"),
        ({"batch_tokens": 512}, "finetune.privacy.batch_rows"),
        ({"objective.class_weights": "balanced"}, "it counts the rows of classes"),
        ({"task": "regression"}, "target_low and target_high"),
    ],
)
def test_settings_that_do_not_go_with_privacy_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message) as error:
        check_private(FinetuneParams().override({"privacy.epsilon": 8.0} | changes))
    assert "\n" not in str(error.value)


def test_the_plan() -> None:
    params = PARAMS.override({"privacy.noise_multiplier": None, "privacy.epsilon": 3.0, "privacy.batch_rows": 0})
    record = plan(params, 4_000)
    assert record.epsilon <= 3.0 < record.epsilon * 1.02
    assert record.delta == pytest.approx(0.1 / 4_000)
    assert record.events[-1].sampling_rate == default_batch(4_000) / 4_000 == 1 / 16
    ended = plan(params.override({"privacy.noise_multiplier": 1.0, "epochs": 50}), 4_000)
    assert ended.events[-1].steps < 800
    assert ended.epsilon <= 3.0
    with pytest.raises(ParamsError, match="one of the 4,000 rows is published; set at most"):
        plan(params.override({"privacy.delta": 0.001}), 4_000)
    with pytest.raises(ParamsError, match=r"the first step with noise_multiplier=0.9 exceeds"):
        plan(params.override({"privacy.noise_multiplier": 0.9, "privacy.epsilon": 0.1}), 4_000)


def _context(place: Path, name: str) -> Context:
    for folder in ("out", "scratch"):
        (place / name / folder).mkdir(parents=True)
    return Context("finetune", place / name / "out", place / name / "scratch", signing=place / "home" / "signing")


def _spend(ctx: Context, start: Model | None = None, **changes: Any) -> PrivacyRecord:
    data = Dataset(rows=100, source="people.csv", digest="d")
    found = spend(ctx, PARAMS.override(changes), METADATA, data, start).privacy
    assert found is not None
    return found


def test_trainings_on_the_same_rows_add_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = _spend(_context(tmp_path, "a"))
    assert (first.data_epsilon, first.data_trainings) == (first.epsilon, 1)
    ctx = _context(tmp_path, "b")
    second = _spend(ctx)
    again = _spend(ctx)  # the same training, resumed
    assert second == again
    assert second.data_trainings == 2
    assert first.epsilon < second.data_epsilon < 2 * first.epsilon
    assert "2 private trainings on people.csv spend epsilon" in caplog.text
    with pytest.raises(ParamsError, match=r"3 private trainings on people.csv .* more than finetune.privacy.total"):
        _spend(_context(tmp_path, "c"), **{"privacy.total_epsilon": second.data_epsilon})
    files = list(ledger_folder(tmp_path / "home" / "signing").glob("*/*.json"))
    assert len(files) == 2
    files[0].write_text("{")
    with pytest.raises(DataError, match="is no record of a private training"):
        _spend(_context(tmp_path, "d"))


def test_training_further_adds_to_the_model_and_a_start_without_privacy_is_rejected(tmp_path: Path) -> None:
    record = _spend(_context(tmp_path, "a"))
    model = Model(uri=str(tmp_path), task="text_classification", base="b", max_length=64)
    write_metadata(tmp_path, METADATA.model_copy(update={"privacy": record}))
    further = _spend(_context(tmp_path, "b"), model)
    assert further.events == (*record.events, record.events[-1])
    assert further.epsilon > record.epsilon
    write_metadata(tmp_path, METADATA)
    with pytest.raises(DataError, match="trained without privacy"):
        _spend(_context(tmp_path, "c"), model)


def test_targets_are_scaled_by_bounds_and_not_by_rows(tmp_path: Path) -> None:
    params = PARAMS.override({"task": "regression", "privacy.target_low": 0.0, "privacy.target_high": 8.0})
    check_private(FinetuneParams(task="regression", lora=2, privacy=params.privacy))
    metadata = ModelMetadata(task="regression", labels=("stars",), label_kind=LabelKind.NUMBER, max_length=64)
    found = spend(_context(tmp_path, "a"), params, metadata, Dataset(rows=100, source="s", digest="d"))
    assert (found.means, found.scales) == ((4.0,), (2.0,))
    fitted = load_task(found).fit(np.array([[100.0], [200.0]], np.float32))
    assert (fitted.metadata.means, fitted.metadata.scales) == ((4.0,), (2.0,))


def test_the_record_is_a_part_of_the_metadata() -> None:
    text = METADATA.model_copy(update={"privacy": RECORD}).model_dump_json()
    assert ModelMetadata.model_validate_json(text).privacy == RECORD
    assert json.loads(text)["privacy"]["accountant"] == "prv"
    assert RECORD.describe().startswith("epsilon ")
