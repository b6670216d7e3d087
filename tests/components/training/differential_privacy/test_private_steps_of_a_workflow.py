"""Private training through the steps of a workflow, from configure to the tags of the version."""

from collections.abc import Callable
from pathlib import Path

import pytest

from raypath.components import Context, Dataset, Splits
from raypath.components.cards.facts import facts_of
from raypath.components.cards.model_card import model_card
from raypath.components.configure import configure
from raypath.components.core.errors import ParamsError
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.extract import ExtractParams, extract
from raypath.components.finetune import finetune
from raypath.components.models.metadata import read_metadata
from raypath.components.preprocess import PreprocessParams
from raypath.components.register import RegisterParams, _tags, _with_precision
from raypath.components.training.params import FinetuneParams
from raypath.components.tune import TuneParams, tune


def test_a_head(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Callable[..., Context], tmp_path: Path
) -> None:
    train, valid = parts
    params = FinetuneParams(base=str(base)).override({"privacy.epsilon": 8.0, "privacy.batch_rows": 50})
    splits = Splits(train=train, valid=valid, test=valid)
    chosen = configure.fn(make_context("configure"), splits, params, PreprocessParams())
    assert chosen.inputs.values["max_length"] == 128  # whatever the rows are
    assert chosen.finetune.values["method"] == "head"
    ctx = make_context("extract")
    made = extract.fn(ctx, splits, ExtractParams.of(params), chosen.finetune)
    train, valid = (each.model_copy(update={"uri": str(ctx.out / each.uri)}) for each in (made.train, made.valid))
    with pytest.raises(ParamsError, match="each trial would spend privacy"):
        tune.fn(make_context("tune"), train, valid, params, TuneParams(trials=2), None, chosen.finetune)
    best = tune.fn(make_context("tune"), train, valid, params, TuneParams(trials=0), None, chosen.finetune)
    ctx = make_context("finetune", signing=tmp_path / "home" / "signing")
    model = finetune.fn(ctx, train, valid, best, params).model_copy(update={"uri": str(ctx.out)})
    record = read_metadata(ctx.out).privacy
    assert record is not None
    assert 7.8 < record.epsilon <= 8.0
    assert record.units == train.rows
    ctx = make_context("evaluate")
    report = evaluate.fn(ctx, model, valid, EvaluateParams(resamples=0, plots=False, membership=True), valid, train)
    assert report.metrics["epsilon"] == record.epsilon
    assert {"membership_auc", "membership_tpr_high", "membership_lira_auc_low"} <= set(report.metrics)
    assert '"epsilon"' in (ctx.out / "metrics.json").read_text()
    tags = _tags(ctx, model, report)
    assert tags["raypath.privacy"] == record.describe()
    assert tags["raypath.metric.epsilon"] == repr(record.epsilon)
    assert _with_precision(ctx, model, RegisterParams(), "macro_f1", valid) == (model, {})
    card = model_card(facts_of("reviews", 1, Path(model.uri), ""), "hf", "Files.", "Use it.")
    assert f"- Differential privacy: {record.describe()}" in card
