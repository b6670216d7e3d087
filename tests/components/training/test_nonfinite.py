"""Numbers that are none end a training before they reach its weights, and the message says what is left."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.errors import DataError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.text_classification import TextClassification
from raypath.components.training.checkpoints import checkpoint
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from tests.tiny import LABELS, rows

METADATA = ModelMetadata(task="text_classification", labels=LABELS, max_length=64)
PARAMS = ResolvedParams(epochs=2, lr=1e-3, batch_tokens=512, checkpoint_seconds=0.0, memory="full")


class Steep(TextClassification):
    """From the third batch on the loss is finite and its gradient is not: that of a root at 0."""

    batches = 0

    def loss(self, outputs: Any, batch: Any) -> Any:
        self.batches += 1
        loss = super().loss(outputs, batch)
        return loss if self.batches < 3 else loss + (0.0 * outputs.sum()).sqrt()


class Blank(TextClassification):
    """A task of a user's with a figure that is no number."""

    def metrics(self, targets: Any, decoded: Any) -> dict[str, float]:
        return {"macro_f1": math.nan}


def _training(base: Path, scratch: Path | None, kind: type[TextClassification] = TextClassification) -> Training:
    return start_training(
        TrainingJob(kind(METADATA), base, rows(100), rows(40, seed=1), PARAMS, seed=3, threads=1, scratch=scratch)
    )


def _spoil(training: Training, step: int) -> Callable[..., None]:
    """Called after a step: makes the weights of the head NaN once `step` is done."""

    def spoil(done: int, *_: Any) -> None:
        if done == step:
            with torch.no_grad():
                training.model.classifier.weight.fill_(math.nan)

    return spoil


def test_a_gradient_that_is_no_number_leaves_the_weights_as_they_were(base: Path, tmp_path: Path) -> None:
    training = _training(base, tmp_path, Steep)
    with pytest.raises(
        DataError, match=r"gradient norm is (NaN|infinite) at epoch 1, step 3 \(training rows"
    ) as caught:
        training.run()
    kept = checkpoint.latest(tmp_path / "last")
    assert kept is not None
    assert kept.name == "step-00000002"
    assert caught.value.fix.endswith(f"the last good checkpoint is {kept}")
    assert all(torch.isfinite(weight).all() for weight in training.model.parameters())


def test_outputs_that_are_no_numbers_are_said_with_what_is_left(base: Path, tmp_path: Path) -> None:
    training = _training(base, tmp_path)
    first = len(training.epochs[0])
    training.job.on_step = _spoil(training, first)
    said = rf"outputs are NaN or infinite after step {first} \(validation rows 0, 1, .*\); lower finetune\.lr"
    with pytest.raises(DataError, match=said) as caught:
        training.run()
    assert f"the last good checkpoint is {tmp_path / 'last' / checkpoint.name_of(first - 1)}" in caught.value.fix
    alone = _training(base, None)
    alone.job.on_step = _spoil(alone, first)
    with pytest.raises(DataError, match="there is no checkpoint yet"):
        alone.run()


def test_a_figure_that_is_no_number_chooses_nothing(base: Path) -> None:
    with pytest.raises(DataError, match=r"metric macro_f1 is NaN after step .* set another finetune\.metric"):
        _training(base, None, Blank).run()


def test_a_language_model_that_guesses_nothing_is_told_alike(base: Path) -> None:
    from raypath.components.tasks.catalog import load_task

    metadata = METADATA.model_copy(update={"task": "language_model", "labels": (), "label_kind": "none"})
    training = start_training(
        TrainingJob(load_task(metadata), base, rows(60), rows(20, seed=1), PARAMS, seed=3, threads=1)
    )

    def spoil(*_: Any) -> None:
        with torch.no_grad():
            training.model.bert.embeddings.word_embeddings.weight.fill_(math.nan)

    training.epochs = training.epochs[:1]
    training.job.on_step = lambda done, *_: spoil() if done == len(training.epochs[0]) else None
    with pytest.raises(DataError, match="outputs are NaN or infinite"):
        training.run()
    assert np.isnan(training.predict(training.job.valid)).any()
