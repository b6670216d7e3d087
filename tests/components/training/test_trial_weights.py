"""Weights that tune kept: taken where the course is the same, and then bit for bit what training makes."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.artifacts import Dataset, Settings
from raypath.components.core.context import Context
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.models import bf16 as precision
from raypath.components.tasks.catalog import load_task
from raypath.components.training import trial_weights
from raypath.components.training.batches.token_dataset import load_token_dataset
from raypath.components.training.compatibility import metadata_for
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from tests.tiny import tiny_bert

Parts = tuple[Dataset, Dataset]


def _params(base: Path, **changes: Any) -> ResolvedParams:
    return ResolvedParams().override({"base": str(base), "epochs": 2, "lr": 1e-3, "batch_tokens": 256, **changes})


def _kept(ctx: Context, base: Path, parts: Parts, params: ResolvedParams) -> Settings:
    """What a trial with these settings leaves; `uri` is the folder that holds `best`."""
    metadata = metadata_for(params, parts[0], base)
    train, valid = (load_token_dataset(part.uri, 2) for part in parts)
    training = start_training(
        TrainingJob(load_task(metadata).fit(train.targets), base, train, valid, params, ctx.seed, 2)
    )
    trial_weights.keep(ctx.out / trial_weights.BEST, training, training.run())
    course = trial_weights.training_fingerprint(ctx, params, metadata, base, parts)
    return Settings(
        uri=str(ctx.out), values={"lr": params.lr}, metric="log_loss", score=0.0, trials=1, training_fingerprint=course
    )


def test_the_model_is_the_one_that_training_makes(
    base: Path, parts: Parts, make_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = make_context("finetune")
    made = finetune.fn(fresh, *parts, None, _params(base))
    best = _kept(make_context("tune"), base, parts, _params(base))
    taken = make_context("finetune")
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", lambda *_: pytest.fail("it trains"))
        assert finetune.fn(taken, *parts, best, _params(base, lr=5e-4)) == made
    names = sorted(path.name for path in fresh.out.iterdir())
    assert names == sorted(path.name for path in taken.out.iterdir())
    for name in names:
        assert (fresh.out / name).read_bytes() == (taken.out / name).read_bytes(), name


def test_another_course_or_damaged_weights_are_trained(
    base: Path, parts: Parts, make_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, params = make_context("tune"), _params(base)
    best, metadata = _kept(ctx, base, parts, params), metadata_for(params, parts[0], base)

    def ready(params: ResolvedParams = params, parts: Parts = parts, ctx: Context = ctx) -> Path | None:
        return trial_weights.matching_weights(ctx, best, params, metadata, base, parts)

    assert ready() == ctx.out / trial_weights.BEST
    assert ready(params.override({"precision": "fp32"})) is not None, "it is what auto takes here"
    with monkeypatch.context() as patch:
        # A processor with bfloat16: the same settings take another course.
        patch.delenv("RAYPATH_PRECISION")
        patch.setattr(precision, "_cpu_flags", lambda: ["amx_bf16"])
        patch.setattr("torch.cuda.is_available", lambda: False)
        assert ready() is None
    assert ready(params.override({"checkpoint_seconds": 1.0, "threads": 2})) is not None
    for other in (
        {"lr": 2e-3},
        {"precision": "bf16"},
        {"threads": 1},
        {"epochs": 1},
        {"workers": 2},
        {"objective.label_smoothing": 0.1},
    ):
        assert ready(params.override(other)) is None, other
    assert ready(parts=(parts[0].model_copy(update={"digest": "f" * 64}), parts[1])) is None
    assert ready(ctx=make_context("finetune", seed=1)) is None
    other = tiny_bert(ctx.scratch, seed=1)
    assert trial_weights.matching_weights(ctx, best, params, metadata, other, parts) is None, (
        "the base has other weights now"
    )
    rows = [load_token_dataset(part.uri, 2) for part in parts]
    for kind, taken in (("bf16", False), ("fp32", True)):
        job = TrainingJob(
            load_task(metadata), base, rows[0], rows[1], params.override({"precision": kind}), ctx.seed, 2
        )
        found = trial_weights.load(ctx.out / trial_weights.BEST, start_training(job))
        assert (found is not None) == taken, "the training runs on another node than the check before"
    with open(ctx.out / trial_weights.BEST / "model.safetensors", "r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    assert ready() is None
