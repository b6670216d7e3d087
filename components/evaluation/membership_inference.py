"""Membership inference: an attacker who queries a model tells rows that it was trained on from others.

Two attacks. The loss attack takes rows of which the model is certain for members. LiRA (Carlini et al., Membership
Inference Attacks From First Principles, 2022) compares the model's confidence in a row with that of shadow models, some
of which were trained on the row; here they are linear heads on frozen features, so that dozens take seconds.

An attack is as good as guessing at an area under the ROC curve (AUC) of 0.5, and a share of 0.01 of the members found
with 1% of the others. It is a lower bound of what a model reveals: another attack may find more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.proportions import Z, wilson

FALSE_POSITIVES = 0.01
SHADOWS = 32
STRENGTH = 100.0
"""Inverse of the L2 penalty of a shadow head on features of length one: hardly any."""


@dataclass(frozen=True)
class AttackResult:
    """Success of an attack at telling members from others: value and 95% interval (low, high) of each."""

    auc: tuple[float, float, float]
    """Area under the ROC curve; the interval is DeLong's."""
    tpr: tuple[float, float, float]
    """Share of the members found at a threshold that 1% of the others reach; Wilson's interval, at that threshold."""
    members: int
    others: int

    def metrics(self, name: str) -> dict[str, float]:
        """Return values and bounds by name, such as membership_auc and membership_auc_low."""
        found: dict[str, float] = {}
        for part, values in (("auc", self.auc), ("tpr", self.tpr)):
            found |= {f"{name}_{part}{end}": value for end, value in zip(("", "_low", "_high"), values, strict=True)}
        return found


def attack(members: Array, others: Array) -> AttackResult:
    """Compare scores, higher for likely members: float64 [M] of members and [N] of others. Raises ValueError if there
    are fewer than two of either."""
    members, others = np.asarray(members, np.float64), np.asarray(others, np.float64)
    if min(len(members), len(others)) < 2:
        raise ValueError("membership inference needs two members and two others at least")
    ordered, own = np.sort(others), np.sort(members)
    # Share of the others below each member, and of the members above each other; ties are halves.
    below = (np.searchsorted(ordered, members) + np.searchsorted(ordered, members, side="right")) / (2 * len(others))
    above = 1 - (np.searchsorted(own, others) + np.searchsorted(own, others, side="right")) / (2 * len(members))
    auc = float(below.mean())
    spread = Z * float(np.sqrt(below.var(ddof=1) / len(members) + above.var(ddof=1) / len(others)))
    threshold = ordered[len(others) - 1 - int(FALSE_POSITIVES * len(others))]
    hits = int((members > threshold).sum())
    low, high = wilson(np.array(hits), np.array(len(members)))
    return AttackResult(
        auc=(auc, max(0.0, auc - spread), min(1.0, auc + spread)),
        tpr=(hits / len(members), float(low), float(high)),
        members=len(members),
        others=len(others),
    )


def confidence(probabilities: Array, targets: Array) -> Array:
    """Return log(p / (1 - p)) of the probability p of each row's class, float64 [N]: nearly normal over models.

    probabilities: float64 [N, K]; targets: int64 [N].
    """
    p = np.clip(probabilities[np.arange(len(targets)), targets], 1e-12, 1 - 1e-12)
    return np.asarray(np.log(p) - np.log1p(-p))


def shadow_confidence(features: Array, targets: Array, seed: int, shadows: int = SHADOWS) -> tuple[Array, Array]:
    """Train linear heads, each on a random half of the rows: their confidence in every row, float64 [S, N], and the
    rows of each, bool [S, N].

    features: float [N, H]; targets: int64 [N]. Each row is in half of the halves. A class that a half lacks has
    probability 0.
    """
    from sklearn.linear_model import LogisticRegression

    rows, rng = len(targets), np.random.default_rng(seed)
    scaled = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    order = np.argsort(rng.random((shadows // 2, rows)), axis=1) < rows // 2
    included = np.concatenate([order, ~order])
    found = np.empty((len(included), rows))
    for n, chosen in enumerate(included):
        head = LogisticRegression(C=STRENGTH, max_iter=200).fit(scaled[chosen], targets[chosen])
        probabilities = np.zeros((rows, int(targets.max()) + 1))
        probabilities[:, head.classes_] = head.predict_proba(scaled)
        found[n] = confidence(probabilities, targets)
    return found, included


def lira(target: Array, shadows: Array, included: Array) -> Array:
    """Return the log-likelihood ratio of each row being a member, float64 [N].

    target: confidence of the attacked model, [N]; shadows, included: of `shadow_confidence`, [S, N]. The confidence of
    models with the row, and of those without, is normal with means of the row's own, and a variance common to all rows,
    which is steadier with few shadow models.
    """
    inside, outside = np.where(included, shadows, np.nan), np.where(included, np.nan, shadows)
    means = np.nanmean(inside, axis=0), np.nanmean(outside, axis=0)
    variances = [
        max(float(np.nanmean((each - mean) ** 2)), 1e-12) for each, mean in zip((inside, outside), means, strict=True)
    ]
    # Shadow heads may be more certain than the attacked model altogether: only the order of rows is compared.
    shift = float(np.median(target) - np.median(shadows))
    given = target - shift
    one, other = (
        ((given - mean) ** 2) / (2 * var) + np.log(var) / 2 for mean, var in zip(means, variances, strict=True)
    )
    return np.asarray(other - one)
