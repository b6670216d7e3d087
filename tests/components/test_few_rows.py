"""A model of few rows is one like any other: tuned, evaluated, registered, and the same in the registry."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.artifacts import Dataset, Settings
from raypath.components.core.context import Context, Tracking
from raypath.components.core.errors import DataError
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.inference.local_model import LocalModel
from raypath.components.register import RegisterParams, register
from raypath.components.registry import client as registry
from raypath.components.tune import TuneParams, tune
from tests.tiny import write_part

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
NOTHING = Settings(values={}, metric="log_loss", score=0.0, trials=0)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Dataset, Dataset]:
    """Few rows indeed: contrastive training takes each of them many times."""
    train, valid = (tmp_path_factory.mktemp(name) for name in ("train", "valid"))
    return write_part(train, base, 64, 0), write_part(valid, base, 60, 1)


def _params(base: Path, **changes: Any) -> FinetuneParams:
    plain = {"base": str(base), "method": "contrastive", "epochs": 1, "lr": 1e-3, "batch_tokens": 512, "threads": 1}
    return FinetuneParams().override(plain | changes)


def test_it_is_evaluated_and_registered_and_answers_the_same(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, mlflow_uri: str, tmp_path: Path
) -> None:
    ctx: Context = make_context("finetune")
    model = finetune.fn(ctx, *parts, NOTHING, _params(base)).finalized(str(ctx.out), "few")
    own = make_context("evaluate")
    report = evaluate.fn(own, model, parts[1], EvaluateParams(resamples=0, plots=False)).finalized(str(own.out), "")
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert model.metrics[name] == pytest.approx(report.metrics[name], abs=1e-5)
    assert model.metrics["accuracy"] > 0.8
    tracking = Tracking(uri=mlflow_uri, experiment="few", parent="", spool=str(tmp_path / "spool"))
    release = register.fn(
        make_context("register", key="few", tracking=tracking), model, report, RegisterParams(name="few-rows"), parts[1]
    )
    folder = registry.resolve(mlflow_uri, f"models:/few-rows@{release.alias}", tmp_path / "cache")[2]
    texts = ["great great bad great", "bad bad great bad bad"]
    here, there = (LocalModel(place, "few-rows", 1).predict(texts) for place in (ctx.out, folder))
    assert [each.label for each in there.predictions] == [each.label for each in here.predictions]
    for one, other in zip(here.predictions, there.predictions, strict=True):
        np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=0.05)


@pytest.mark.slow
def test_its_trials_are_scored_by_a_fitted_head_and_a_linear_probe_has_none(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, ray_head: None
) -> None:
    search = TuneParams(trials=2, rows=64, valid_rows=60, rungs=2, metric="accuracy", lr=(1e-4, 1e-2), concurrent=1)
    found = tune.fn(make_context("tune"), *parts, _params(base), search)
    assert found.trials == 2
    assert found.score > 0.75
    assert tune.fn(make_context("tune"), *parts, _params(base, method="linear_probe"), search).trials == 0


def test_a_step_names_what_a_fitted_head_cannot_do(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any
) -> None:
    numbers = [part.model_copy(update={"label_kind": "set"}) for part in parts]
    with pytest.raises(DataError, match=r"finetune\.method=contrastive is for one class a row"):
        finetune.fn(make_context("finetune"), *numbers, NOTHING, _params(base))
