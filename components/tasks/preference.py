"""Preference task: a language model is trained on pairs of a chosen and a rejected answer, or on answers that
are labelled good or bad.

The objectives are functions of log-probabilities (`objectives/preference.py`). Those of the reference, the model that
training starts from, are columns of the rows (`components/score_reference.py`), so that training runs one model. The
trained model is one of the task text_generation.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Any, Self

import numpy as np

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.columns import INPUT_PREFIX, Column, inputs_of
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.models.decoder.packed_batch import rows_of_learned
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.objectives.losses import class_weights, sum_rows
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.objectives.preference import (
    OBJECTIVES,
    Answers,
    kto_loss,
    kto_reference_point,
    pair_loss,
)
from raypath.components.tasks.text_generation import TextGeneration

CONVERSATION = Column(name="messages", kind="messages", stored=f"{INPUT_PREFIX}messages")
"""Input of the trained model."""
GOOD = 1
"""Target of a good answer: labels are sorted, false before true."""


class Preference(TextGeneration):
    """Loss of pairs of answers. A batch has two answers a row, packed one after the other: chosen and rejected; for
    KTO the row's own and one to another prompt.

    `references` float32 [B, 2]: log-probabilities of both by the reference; missing where they were not computed.
    """

    name = "preference"
    kinds = frozenset(LabelKind)
    input_kinds = frozenset({"preference", "messages"})
    metric = "reward_accuracy"
    objectives = frozenset({"preference", "beta", "margin", "label_smoothing", "class_weights"})

    def __init__(self, metadata: ModelMetadata, objective: ObjectiveParams | None = None) -> None:
        super().__init__(metadata, objective)
        self.facts = OBJECTIVES[self.objective.preference]
        self.beta = self.objective.beta or self.facts.beta
        self._weights: Array | None = None
        self._check_objective()

    @property
    def outputs(self) -> int:
        """Numbers per row: log-probability and tokens of the first answer, of the second, and of both by the
        reference."""
        return 6

    @property
    def trained_metadata(self) -> ModelMetadata:
        """Metadata of the trained model: it continues conversations."""
        facts: dict[str, Any] = {"task": TextGeneration.name, "labels": (), "label_kind": LabelKind.NONE}
        given = self.objective
        objective = {"preference": given.preference, "beta": self.beta, "label_smoothing": given.label_smoothing}
        facts["objective"] = objective | {"margin": given.margin}
        return self.metadata.model_copy(update={**facts, "columns": (CONVERSATION,)})

    def fit(self, targets: Array) -> Self:
        """Return the task with the weights of good and bad answers, for objective.class_weights=balanced."""
        self.check_targets(targets, "train")
        fitted = copy(self)
        if self.objective.class_weights == "balanced":
            fitted._weights = class_weights(targets, 2).astype(np.float32)
        return fitted

    def check_targets(self, targets: Array, split: str) -> None:
        """Raise DataError for a split without good or without bad answers, where they are labelled."""
        if not self.facts.pairs and len(np.unique(targets)) < 2:
            what = f"all answers of {split} are {'good' if len(targets) and targets[0] == GOOD else 'bad'}"
            raise DataError(f"{what}; kto needs both", fix="give rows of both labels")

    def inputs(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the batch. Raises DataError for rows of one answer."""
        if "shared" not in batch:
            name = self.objective.preference
            fix = "run preprocess again" if self.facts.pairs else "put the step `score_reference` before finetune"
            raise DataError(f"{name} needs two answers a row; the rows have one", fix=fix)
        return batch

    def weight(self, batch: Batch) -> float:
        """Number of rows, or the sum of their weights."""
        weights = self._row_weights(batch)
        return float(len(batch["targets"]) if weights is None else weights.sum())

    def forward(self, model: Any, batch: Batch) -> Any:
        """Compute the log-probability and the number of tokens of the answers, float32 [B, 4]: first, then second."""
        return answer_scores(model, batch).reshape(-1, 4)

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Loss of the objective summed over the rows. outputs float32 [B, 4]."""
        losses = self._losses(self.record(outputs, batch), batch["targets"])
        weights = self._row_weights(batch)
        return sum_rows(losses, {} if weights is None else {"row_weights": weights})

    def record(self, outputs: Any, batch: Batch) -> Any:
        """Join the outputs with the log-probabilities of the reference, [B, 6]. Raises DataError for rows without."""
        import torch

        reference = batch.get("references")
        if reference is None:
            if self.facts.reference:
                what = f"{self.objective.preference} needs log-probabilities of a reference, which the rows do not have"
                raise DataError(what, fix="put the step `score_reference` before tune and finetune")
            reference = outputs.new_zeros(len(outputs), 2)
        return torch.cat([outputs, reference], dim=1)

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Compute `loss`, the objective; `reward_accuracy` and `reward_margin`; `perplexity` of good answers.

        The reward of an answer is what the objective compares, times beta: for dpo its log-ratio (Rafailov et al.,
        2023, section 4). Of pairs, the accuracy is the share whose chosen answer has the higher reward, and the margin
        the mean difference. Of labelled answers, the same over all pairs of a good and a bad one.
        """
        import torch

        recorded = torch.from_numpy(np.asarray(decoded, np.float64))
        labels = torch.from_numpy(np.asarray(targets))
        first, second = self._answers(recorded)
        rewards = self.beta * first.scores(self.facts).numpy()
        learned = torch.ones(len(rewards), dtype=torch.bool) if self.facts.pairs else labels == GOOD
        if self.facts.pairs:
            difference = rewards - self.beta * second.scores(self.facts).numpy()
            accuracy, margin = float((difference > 0).mean()), float(difference.mean())
        else:
            good = np.asarray(targets) == GOOD
            accuracy = share_of_pairs(rewards[good], rewards[~good])
            margin = float(rewards[good].mean() - rewards[~good].mean())
        surprise = -float(first.logps[learned].sum() / first.tokens[learned].sum())
        return {
            "reward_accuracy": accuracy,
            "reward_margin": margin,
            "loss": float(self._losses(recorded, labels).mean()),
            "perplexity": math.exp(min(surprise, 700.0)),
        }

    def _losses(self, recorded: Any, targets: Any) -> Any:
        """Loss of each row, [B], from what `record` returns."""
        first, second = self._answers(recorded)
        if self.facts.pairs:
            smoothing, margin = self.objective.label_smoothing, self.objective.margin
            return pair_loss(self.objective.preference, first, second, self.beta, smoothing, margin)
        point = kto_reference_point(second.scores(self.facts))
        return kto_loss(first.scores(self.facts), targets == GOOD, point, self.beta)

    @staticmethod
    def _answers(recorded: Any) -> tuple[Answers, Answers]:
        logps, tokens, others, their_tokens, reference, their_reference = recorded.unbind(dim=1)
        return Answers(logps, tokens, reference), Answers(others, their_tokens, their_reference)

    def _row_weights(self, batch: Batch) -> Any:
        """Weights of the rows, [B], times those of good and bad answers; None for equal ones."""
        import torch

        weights = batch.get("row_weights")
        if self._weights is None:
            return weights
        balanced = torch.from_numpy(self._weights).to(batch["targets"].device)[batch["targets"]]
        return balanced if weights is None else weights * balanced

    def _check_objective(self) -> None:
        """Raise DataError or ParamsError for rows or settings that the objective does not take."""
        name, smoothing = self.objective.preference, self.objective.label_smoothing
        kind, label = inputs_of(self.metadata.columns)[0].kind, self.metadata.label_kind
        if self.facts.pairs and (kind != "preference" or label is not LabelKind.NONE):
            labelled = "without labels" if label is LabelKind.NONE else f"with labels of kind {label}"
            what = f"{name} takes pairs of responses; the rows are of kind {kind} {labelled}"
            fix = "give the columns prompt, chosen and rejected; for responses with a label true or false set "
            raise DataError(what, fix=f"{fix}-s finetune.objective.preference=kto")
        if not self.facts.pairs and (kind != "messages" or label is not LabelKind.BOOL):
            named = f" ({', '.join(self.metadata.labels[:4])})" if self.metadata.labels else ""
            what = f"{name} takes messages labelled true (good) or false; got {kind} with labels of kind {label}{named}"
            fix = "set -s read.label= to a column with the booleans true and false, or another objective.preference"
            raise DataError(what, fix=fix)
        if smoothing and (not self.facts.smoothing or smoothing >= 0.5):
            able = ", ".join(each for each, facts in OBJECTIVES.items() if facts.smoothing)
            what = f"objective.label_smoothing={smoothing:g} does not suit {name}"
            raise ParamsError(what, fix=f"it is below 0.5, and for {able}")
        if name != "simpo" and self.objective.margin != ObjectiveParams().margin:
            what = f"objective.margin={self.objective.margin:g} does not suit {name}"
            raise ParamsError(what, fix="leave it out; it is of simpo alone")
        if self.facts.pairs and self.objective.class_weights != "none":
            raise ParamsError(f"{name} has no classes to balance", fix="leave finetune.objective.class_weights out")


def answer_scores(model: Any, batch: Batch) -> Any:
    """Compute the log-probability, summed over tokens in the loss, and their number, of each answer of a packed batch:
    float32 [2 B, 2]. model: a PackedDecoder."""
    import torch

    log_p, _ = model(batch, scores=True)
    answers = rows_of_learned(batch)
    found = torch.stack([log_p, torch.ones_like(log_p)], dim=1)  # [n, 2]
    return found.new_zeros(len(batch["row_starts"]) - 1, 2).index_add(0, answers, found)


def share_of_pairs(good: Array, bad: Array) -> float:
    """Share of all pairs of one of `good` [N] and one of `bad` [M] where the first is larger; ties count one half.

    The area under the ROC curve: Mann and Whitney, 1947.
    """
    ordered = np.sort(bad)
    below, upto = np.searchsorted(ordered, good, "left"), np.searchsorted(ordered, good, "right")
    return float((below + upto).mean() / 2 / len(bad))
