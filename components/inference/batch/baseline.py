"""Decision on a version without a champion to compare with: it is compared with a baseline on the test rows.

The baseline of a language model is the model that its training started from, which `evaluate_generation` evaluated on
the same rows; that of a classifier is the most frequent class of the test rows, always predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Report
from raypath.components.evaluation.generation.catalog import METRICS
from raypath.components.evaluation.metrics import class_metrics
from raypath.components.evaluation.paired import TIE
from raypath.components.inference.batch.scoring import read_targets
from raypath.components.inference.generation.evaluation.findings import BEFORE
from raypath.components.models.metadata import read_metadata
from raypath.components.registry.evidence import Decision, Rules, number
from raypath.components.tasks.catalog import load_task, task_type
from raypath.components.tasks.text_classification import TextClassification

NO_CHAMPION = "there was no champion"
TIE_BREAKER = "loss"
"""Metric of language models that decides between equal ones: few tests tell two models of no right answer apart."""


@dataclass(frozen=True)
class Measured:
    """A metric of a new version and of its baseline. lower: lower is better."""

    metric: str
    new: float
    baseline: float
    lower: bool

    @property
    def gain(self) -> float:
        """Difference to the baseline, positive if the new version is better; 0 for equal ones."""
        gain = self.baseline - self.new if self.lower else self.new - self.baseline
        return gain if abs(gain) > TIE else 0.0


def decide_first(report: Report, metric: str, rules: Rules) -> Decision:
    """Promote a version unless `rules.beat_baseline` is set and its metric is not better than that of its baseline.

    The reason has both numbers. Raises DataError for a test split whose labels the model does not have.
    """
    name, compared = _compared(report, metric)
    facts = f"{metric} {number(report.metrics[metric])}"
    if not compared:
        return Decision(True, f"{facts}; {NO_CHAMPION}")
    differing = next((each for each in compared if each.gain), compared[0])
    text = f"{differing.metric} {number(differing.new)} against {number(differing.baseline)} of {name}"
    if differing is not compared[0]:
        text = f"{facts} as {name}, {text}"
    if differing.gain > 0:
        return Decision(True, f"{text}; {NO_CHAMPION}")
    if rules.beat_baseline:
        return Decision(False, f"{text}, not better, which registry.beat_baseline requires")
    return Decision(True, f"{text}, not better; {NO_CHAMPION}")


def _compared(report: Report, metric: str) -> tuple[str, Sequence[Measured]]:
    """Return the baseline's name and the metrics that decide, the first that differs does; none without a baseline."""
    kind, metrics = task_type(report.model.task, report.model.label_kind), report.metrics
    if kind.generates_text:
        names = [name for name in dict.fromkeys((metric, TIE_BREAKER)) if {name, BEFORE + name} <= metrics.keys()]
        falling = {name for name in names if name in METRICS and METRICS[name].lower}
        found = [Measured(name, metrics[name], metrics[BEFORE + name], name in falling) for name in names]
        return "its base", found if metric in names else ()
    if kind is not TextClassification:
        return "", ()
    metadata = read_metadata(Path(report.model.uri))
    targets = read_targets(metadata, report.data)
    if metric == "ece" or "/" in metric or not len(targets):
        return "", ()  # always one class is calibrated, and right on the rows of that class
    label, constant = majority(targets, metadata.labels)
    if metric not in constant:
        return "", ()
    lower = load_task(metadata).is_lower(metric)
    return f"always {label}", [Measured(metric, metrics[metric], constant[metric], lower)]


def majority(targets: Array, labels: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """Return the most frequent class of targets int [N], and the metrics of predicting it for each row.

    The probabilities of each row are the shares of the classes.
    """
    shares = np.bincount(targets, minlength=len(labels)) / len(targets)
    most = int(shares.argmax())
    probabilities = np.broadcast_to(shares, (len(targets), len(labels)))
    return labels[most], class_metrics(targets, np.full(len(targets), most), probabilities, labels)
