"""Continue the pre-training of a base model on your texts, fine-tune the result, and serve it if it beats the champion.

read -> split -> configure -> preprocess -> pretrain -> finetune -> evaluate -> register -> serve
                           -> inspect

Pre-training uses the texts of `unlabelled.uri`, or without it those of the labelled train split. Texts that also occur
in the labelled valid and test splits are dropped from it.
"""

from raypath.components import Endpoint, NonNegative, Params, workflow
from raypath.components.configure import configure
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.pretrain import PretrainParams, pretrain
from raypath.components.read import ReadParams, read
from raypath.components.register import RegisterParams, register
from raypath.components.serve import serve
from raypath.components.serving.params import ServeParams
from raypath.components.split import SplitParams, split


class Pretraining(Params):
    """Settings for many texts of which few have a label."""

    read: ReadParams = ReadParams(uri="sample://reviews", text="review", label="score")
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    inspect: InspectParams = InspectParams()
    preprocess: PreprocessParams = PreprocessParams()
    unlabelled: ReadParams = ReadParams(uri="", label=None)
    unlabelled_split: SplitParams = SplitParams(valid=0.05, test=0.0)
    pretrain: PretrainParams = PretrainParams()
    finetune: FinetuneParams = FinetuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    registry: RegisterParams = RegisterParams(name="reviews", better_on="macro_f1")
    serve: ServeParams = ServeParams()
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def pretraining(p: Pretraining) -> Endpoint:
    """Read, split, configure, preprocess, pre-train, fine-tune from the result, evaluate, register, serve."""
    rows = split(read(p.read), p.split)
    chosen = configure(rows, p.finetune, p.preprocess)
    inspect(rows, p.inspect, chosen.inputs)
    splits = texts = preprocess(rows, p.preprocess, chosen.inputs)
    if p.unlabelled.uri:
        texts = preprocess(split(read(p.unlabelled), p.unlabelled_split), p.preprocess, chosen.inputs)
    start = pretrain(texts.train, texts.valid, p.pretrain, held_out=splits, settings=chosen.inputs)
    model = finetune(splits.train, splits.valid, chosen.finetune, p.finetune, start=start)
    report = evaluate(model, splits.test, p.evaluate, splits.valid)
    return serve(register(model, report, p.registry), p.serve)
