"""Training on preferences: held-out pairs are told apart, a crash changes no bit, adapters and tuning work."""

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.core.artifacts import Dataset, Model, Splits
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.models.metadata import read_metadata
from raypath.components.score_reference import ScoreReferenceParams, score_reference
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.objectives.preference import OBJECTIVES
from raypath.components.training.batches.token_dataset import load_token_dataset
from raypath.components.training.compatibility import metadata_for
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from tests.components.test_finetune import NOTHING, Notes
from tests.components.training.test_resume import Killed, _kill_at
from tests.forks import forks
from tests.tiny_decoders import decoder_folder
from tests.tiny_pairs import labelled_table, pair_table, write_rows
from tests.waiting import until

Rows = tuple[Dataset, Dataset]
NOTES: Any = Notes()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


def _params(base: Path, objective: str = "dpo", **more: Any) -> ResolvedParams:
    plain = {"base": str(base), "task": "preference", "objective.preference": objective, "precision": "fp32"}
    course = {"epochs": 3, "lr": 3e-3, "batch_tokens": 256, "threads": 1, "patience": 0, "memory": "full"}
    return ResolvedParams().override(plain | course | {"frozen_layers": -1} | more)


def _rows(folder: Path, base: Path, make_context: Any, params: ResolvedParams, start: Model | None = None) -> Rows:
    """Train and valid with the scores of the reference."""
    make = pair_table if OBJECTIVES[params.objective.preference].pairs else labelled_table
    made = [write_rows(folder / name, base, make(count, seed), seed) for seed, (name, count) in enumerate(
        {"train": 120, "valid": 40}.items()
    )]  # fmt: skip
    ctx = make_context("score_reference")
    splits = Splits(train=made[0], valid=made[1], test=made[1])
    scored = score_reference.fn(ctx, splits, ScoreReferenceParams.of(params), None, start)
    if not ScoreReferenceParams.of(params).objective:
        return scored.train, scored.valid
    train, valid = (part.model_copy(update={"uri": str(ctx.out / part.uri)}) for part in (scored.train, scored.valid))
    return train, valid


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_held_out_answers_are_told_apart(name: str, decoder: Path, make_context: Any, tmp_path: Path) -> None:
    params = _params(decoder, name)
    rows = _rows(tmp_path, decoder, make_context, params)
    before = _training(decoder, rows, params, None).validate()
    ctx = make_context("finetune")
    model = finetune.fn(ctx, *rows, NOTHING, params)
    assert model.task == read_metadata(ctx.out).task == "text_generation"
    assert (ctx.out / "chat_template.jinja").exists(), "a default template is saved with the model"
    assert model.metrics["reward_accuracy"] > max(before["reward_accuracy"], 0.95)
    assert model.metrics["reward_margin"] > before["reward_margin"]
    assert model.metrics["loss"] < before["loss"]
    if OBJECTIVES[name].reference:
        assert before["reward_margin"] == pytest.approx(0.0, abs=1e-4), "training starts from the reference"


def test_adapters_are_trained_against_the_base_without_them(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    params = _params(decoder, lora=4, lr=1e-2)
    rows = _rows(tmp_path, decoder, make_context, params)
    training = _training(decoder, rows, params, None)
    assert training.validate()["reward_margin"] == pytest.approx(0.0, abs=1e-4)
    ctx = make_context("finetune")
    model = finetune.fn(ctx, *rows, NOTHING, params)
    assert model.metrics["reward_accuracy"] > 0.95
    assert (ctx.out / "adapter_model.safetensors").exists()
    assert not (ctx.out / "model.safetensors").exists()
    # Adapters that are trained further are their own reference.
    start = model.finalized(str(ctx.out), "1" * 64)
    rows = _rows(tmp_path, decoder, make_context, params, start)
    training = _training(decoder, rows, params, None, start)
    assert training.validate()["reward_margin"] == pytest.approx(0.0, abs=1e-4)
    again = make_context("finetune")
    finetune.fn(again, *rows, NOTHING, params, start)
    assert read_metadata(again.out).base == str(decoder)
    assert (again.out / "adapter_model.safetensors").exists()


def _training(
    base: Path, rows: Rows, params: ResolvedParams, scratch: Path | None, start: Model | None = None
) -> Training:
    train, valid = (load_token_dataset(part.uri, len(part.labels)) for part in rows)
    folder = base if start is None else Path(start.uri)
    task = load_task(metadata_for(params, rows[0], folder, start), params.objective).fit(train.targets)
    return start_training(TrainingJob(task, folder, train, valid, params, seed=3, threads=1, scratch=scratch))


@pytest.mark.parametrize(("name", "step"), [("dpo", 2), ("dpo", 9), ("kto", 5)])
def test_a_crash_changes_no_bit(name: str, step: int, decoder: Path, make_context: Any, tmp_path: Path) -> None:
    params = _params(decoder, name, checkpoint_seconds=0.0, epochs=2)
    rows = _rows(tmp_path, decoder, make_context, params)
    whole = _training(decoder, rows, params, tmp_path / "whole")
    metrics = whole.run()
    cut = _training(decoder, rows, params, tmp_path / "cut")
    cut.job.on_step = _kill_at(step)
    with pytest.raises(Killed):
        cut.run()
    resumed = _training(decoder, rows, params, tmp_path / "cut")
    assert resumed.resume_point is not None
    assert resumed.run() == metrics
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def _noted(base: Path, rows: Rows, params: ResolvedParams, scratch: Path, note: Path, pause: float) -> None:
    """Train and note each step, which takes `pause` seconds more; at the end, write the digest of the weights."""
    training = _training(base, rows, params, scratch)

    def on_step(step: int, steps: int, metrics: dict[str, float]) -> None:
        with open(note, "a", encoding="utf-8") as file:
            file.write(f"{step} {metrics['loss']}\n")
        time.sleep(pause)

    training.job.on_step = on_step
    training.run()
    seen = hashlib.sha256()
    for name, weight in sorted(training.model.state_dict().items()):
        seen.update(name.encode() + weight.detach().numpy().tobytes())
    note.with_suffix(".digest").write_text(seen.hexdigest())


def test_a_killed_training_ends_in_the_same_bits(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    """SIGKILL in the middle of DPO in bfloat16, then the same again."""
    params = _params(decoder, precision="bf16", checkpoint_seconds=0.2, epochs=4)
    rows = _rows(tmp_path, decoder, make_context, params)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _noted(decoder, rows, params, tmp_path / "a", whole, 0.0)
    killed = forks().Process(target=_noted, args=(decoder, rows, params, tmp_path / "b", cut, 0.05))
    killed.start()
    until(lambda: cut.exists() and len(cut.read_text().splitlines()) > 12, 120)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    done = len(cut.read_text().splitlines())
    _noted(decoder, rows, params, tmp_path / "b", cut, 0.0)
    steps = [line.split() for line in cut.read_text().splitlines()]
    assert int(steps[done][0]) > 1, "it resumed from a checkpoint"
    assert cut.with_suffix(".digest").read_text() == whole.with_suffix(".digest").read_text()
    losses = dict(line.split() for line in whole.read_text().splitlines())
    assert all(losses[step] == loss for step, loss in steps)


def test_micro_batches_change_the_sums_alone(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    params = _params(decoder, epochs=1)
    rows = _rows(tmp_path, decoder, make_context, params)
    one, many = (_training(decoder, rows, params.override({"micro_tokens": n}), None) for n in (0, 64))
    one.run(), many.run()
    for name, weight in one.model.state_dict().items():
        torch.testing.assert_close(weight, many.model.state_dict()[name], atol=1e-4, rtol=1e-3, msg=name)


def test_beta_and_rate_are_searched(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    """Two trials in this process: settings of the objective are searched by their dotted names."""
    from raypath.components.tune import TuneParams, _trial_config
    from raypath.components.tuning.trial import _job

    params = _params(decoder, epochs=1)
    rows = _rows(tmp_path, decoder, make_context, params)
    space = TuneParams(trials=2, lr=(1e-4, 1e-2), space={"objective.beta": {"low": 0.05, "high": 1.0}}, rungs=1)
    assert [found.name for found in space.searched()] == ["lr", "objective.beta"]
    config = _trial_config(make_context("tune"), rows, params, space, None, 1e12)
    found = []
    for beta in (0.05, 1.0):
        training = start_training(_job({"lr": 1e-3, "objective.beta": beta}, config, tmp_path / f"{beta}", NOTES))
        found.append(training.run())
    assert found[0]["reward_margin"] != found[1]["reward_margin"]
    assert training.task.score(None, found[0]) == found[0]["reward_accuracy"], "which compares settings of beta"
