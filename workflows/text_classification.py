"""Fine-tune a text classifier and serve it if it beats the champion.

read -> split -> configure -> preprocess -> extract -> tune -> finetune -> evaluate -> register -> serve
                           -> inspect

Settings that are "auto" follow from the data; the sample, and only it, has a short training, so that the first run
takes five minutes (`components/configuration/samples.py`).
"""

from raypath.components import Endpoint, NonNegative, Params, workflow
from raypath.components.configure import configure
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.extract import ExtractParams, extract
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.redact import RedactParams, redact
from raypath.components.register import RegisterParams, register
from raypath.components.serve import serve
from raypath.components.serving.params import ServeParams
from raypath.components.split import SplitParams, split
from raypath.components.tune import TuneParams, tune


class TextClassification(Params):
    """Settings for texts with one label each."""

    read: ReadParams = ReadParams(uri="sample://reviews", text="review", label="score")
    redact: RedactParams = RedactParams()
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    inspect: InspectParams = InspectParams()
    preprocess: PreprocessParams = PreprocessParams()
    tune: TuneParams = TuneParams(trials=0)
    finetune: FinetuneParams = FinetuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    registry: RegisterParams = RegisterParams(name="reviews", better_on="macro_f1")
    serve: ServeParams = ServeParams()
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def text_classification(p: TextClassification) -> Endpoint:
    """Read, split, choose settings, tune, fine-tune, evaluate, register, serve; a report on the data is a branch."""
    data = read(p.read)
    rows = split(redact(data, p.redact) if p.redact.enabled else data, p.split)
    chosen = configure(rows, p.finetune, p.preprocess)
    if not p.finetune.privacy.enabled:
        inspect(rows, p.inspect, chosen.inputs)
    splits = preprocess(rows, p.preprocess, chosen.inputs)
    splits = extract(splits, ExtractParams.of(p.finetune), chosen.finetune)
    best = tune(splits.train, splits.valid, p.finetune, p.tune, settings=chosen.finetune)
    model = finetune(splits.train, splits.valid, best, p.finetune)
    members = splits.train if p.evaluate.membership else None
    report = evaluate(model, splits.test, p.evaluate, splits.valid, members)
    return serve(register(model, report, p.registry, splits.valid), p.serve)
