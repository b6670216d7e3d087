"""Findings by features of a frozen base: probable label errors, and texts far from all others.

Label errors are found by confident learning (Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR 2021) on out-of-fold probabilities of a logistic regression.
"""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.labels import SINGLE_CLASS
from raypath.components.data.wording import plural, verb
from raypath.components.inspection.findings.make import Found, finding
from raypath.components.inspection.report import Severity
from raypath.components.inspection.statistics import Statistics

_FOLDS = 5
MIN_CLASS = 10
"""Rows of a class below which its rows are not judged."""
USEFUL, TRUSTED = 0.8, 0.9
"""Agreement of the model with the labels below which nothing is listed, and below which the list is a note."""
CERTAIN = 0.9
"""Probability of another class from which a row is listed."""
_NEIGHBOURS = 10
_FAR = 5.0
"""Distance from the median of all rows' mean distance to their neighbours, in robust standard deviations."""


def chosen_rows(found: Statistics, most: int, seed: int) -> Array:
    """Return rows to compute features of, sorted: the first of each text; `most` at random if there are more."""
    rows = np.flatnonzero(found.present)
    rows = np.sort(rows[np.unique(found.texts[rows], return_index=True)[1]])
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def model_findings(found: Statistics, rows: Array, features: Array, seed: int, skipped: list[str]) -> list[Found]:
    """Find label errors and outliers. rows: int64 [N]; features: float32 [N, H] of these rows.

    skipped: gets the reason why label errors are left out.
    """
    made = far_texts(found, rows, features)
    if found.label_kind in SINGLE_CLASS:
        made += _label_errors(found, rows, features, seed, skipped)
    return made


def _label_errors(found: Statistics, rows: Array, features: Array, seed: int, skipped: list[str]) -> list[Found]:
    codes = found.codes[rows]
    enough = np.bincount(codes[codes >= 0], minlength=len(found.classes)) >= MIN_CLASS
    used = (codes >= 0) & enough[codes]
    if enough.sum() < 2:
        return []
    _, labels = np.unique(codes[used], return_inverse=True)
    probabilities = out_of_fold(features[used], labels, seed)
    agrees = float((probabilities.argmax(axis=1) == labels).mean())
    if agrees < USEFUL:
        what = f"label errors: a model on features of the base agrees with {agrees:.0%} of the labels"
        skipped.append(f"{what}, and its objections are trusted from {USEFUL:.0%} on")
        return []
    wrong, order = label_errors(probabilities, labels)
    chosen = rows[used][wrong][order]
    if not len(chosen):
        return []
    sample = f" of {len(rows):,} drawn at random" if len(rows) < found.present.sum() else ""
    number = len(chosen)
    doubt = f"probably {verb(number, 'has', 'have')}" if agrees >= TRUSTED else "may have"
    text = (
        f"{plural(number, 'row')}{sample} {doubt} a wrong label: a model of the other rows, which agrees with "
        f"{agrees:.0%} of the labels, gives another class at least {CERTAIN:.0%}; look at "
        f"{verb(number, 'it', 'them, the most certain first')}, and correct the file"
    )
    severity = Severity.WARNING if agrees >= TRUSTED else Severity.NOTE
    return [finding("label_errors", severity, text, found, chosen)]


def out_of_fold(features: Array, labels: Array, seed: int) -> Array:
    """Probabilities of each row's classes by models that were trained on the other folds, float64 [N, K]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    model = LogisticRegression(max_iter=500)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    found: Array = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
    return found


def label_errors(probabilities: Array, labels: Array) -> tuple[Array, Array]:
    """Return a mask of probable errors, bool [N], and the order of those, the most certain first.

    A row belongs to class j of the confident joint if its probability of j is at least the mean probability of j over
    the rows with the label j, and j is the most probable of such classes. Off the diagonal, as many rows are errors as
    the joint, calibrated to the number of rows of each label, has there: those of the largest margin (prune by noise
    rate, sections 3 and 4 of the paper), if their probability is at least CERTAIN: the paper's number alone would list
    the errors of a weak model as well.
    """
    size, classes = probabilities.shape
    own = probabilities[np.arange(size), labels]
    thresholds = np.array([own[labels == n].mean() for n in range(classes)])
    above = np.where(probabilities >= thresholds, probabilities, -1.0)
    confident = np.where(above.max(axis=1) >= 0, above.argmax(axis=1), -1)
    joint = np.zeros((classes, classes))
    known = confident >= 0
    np.add.at(joint, (labels[known], confident[known]), 1)
    counts = np.bincount(labels, minlength=classes)
    joint *= (counts / np.maximum(joint.sum(axis=1), 1))[:, None]
    wrong, predicted = np.zeros(size, bool), probabilities.argmax(axis=1)
    numbers = np.rint(joint).astype(np.int64)
    np.fill_diagonal(numbers, 0)
    suspects = np.flatnonzero((predicted != labels) & (probabilities.max(axis=1) >= CERTAIN))
    for given, other in np.unique(np.stack([labels[suspects], predicted[suspects]], axis=1), axis=0):
        rows = suspects[(labels[suspects] == given) & (predicted[suspects] == other)]
        margin = probabilities[rows, other] - own[rows]
        wrong[rows[np.argsort(-margin, kind="stable")[: numbers[given, other]]]] = True
    certainty = probabilities.max(axis=1) - own
    return wrong, np.argsort(-certainty[wrong], kind="stable")


def far_texts(found: Statistics, rows: Array, features: Array) -> list[Found]:
    """Texts whose nearest neighbours are much farther than those of other texts."""
    if len(rows) < 100:
        return []
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1, algorithm="brute").fit(features)
    distance = neighbours.kneighbors(features)[0][:, 1:].mean(axis=1)
    middle = np.median(distance)
    spread = max(1.4826 * float(np.median(np.abs(distance - middle))), 0.02)
    far = np.flatnonzero((distance - middle) / spread > _FAR)
    if not len(far):
        return []
    chosen = rows[far[np.argsort(-distance[far], kind="stable")]]
    what = f"{plural(len(chosen), 'text')} {verb(len(chosen), 'has', 'have')} no similar text among the others"
    text = f"{what}: see whether {verb(len(chosen), 'it belongs', 'they belong')} to the data"
    return [finding("far_texts", Severity.NOTE, text, found, chosen)]
