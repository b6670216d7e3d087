"""A workflow without a registry, small enough to run container by container."""

from raypath.components import Context, Dataset, Model, NonNegative, Params, Report, component, workflow
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split


class Judged(Params):
    """From texts with one label each to a report."""

    read: ReadParams = ReadParams(uri="data.csv", text="body", label="topic")
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    preprocess: PreprocessParams = PreprocessParams(max_length=32)
    finetune: FinetuneParams = FinetuneParams(base="base", epochs=2, lr=1e-3, frozen_layers=0, threads=1)
    evaluate: EvaluateParams = EvaluateParams(plots=False)
    twice: bool = False
    """Pre-process what was pre-processed: a setting that changes which steps there are."""
    seed: NonNegative = 0


@workflow
def judged(p: Judged) -> Report:
    """Read, split, preprocess, fine-tune, evaluate."""
    parts = preprocess(split(read(p.read), p.split), p.preprocess.using(p.finetune.base))
    parts = preprocess(parts, p.preprocess.using(p.finetune.base)) if p.twice else parts
    return evaluate(finetune(parts.train, parts.valid, None, p.finetune), parts.test, p.evaluate)


@component(version=1)
def placed(ctx: Context, params: SplitParams) -> Dataset:
    """As many rows as the node has cores where the step runs."""
    return Dataset(rows=ctx.workers, label_kind="none", source="")


@workflow
def located(p: Judged) -> Dataset:
    """Tell where it runs."""
    return placed(p.split)


@component(version=1)
def again(ctx: Context, base: Model, output: Dataset | None = None) -> Model:
    """Takes what it makes a fact of the same name of, and may take what Kubeflow has no room for."""
    return base.model_copy(update={"uri": "", "digest": ""})


@workflow
def crowded(p: Judged) -> Model:
    """Names that meet."""
    parts = preprocess(split(read(p.read), p.split), p.preprocess)
    model = finetune(parts.train, parts.valid, None, p.finetune)
    return again(again(model), parts.test) if p.twice else again(model)
