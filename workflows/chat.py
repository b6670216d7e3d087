"""Fine-tune a language model on your own conversations, and register it if it beats the champion.

read -> split -> configure -> preprocess -> finetune -> evaluate_generation -> register
                           -> inspect

Settings that are "auto" follow from the data; the sample, and only it, has a short training, so that the first run
takes minutes (`components/configuration/samples.py`).
"""

from raypath.components import NonNegative, Params, Release, workflow
from raypath.components.configure import configure
from raypath.components.evaluate_generation import EvaluateGenerationParams, evaluate_generation
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.register import RegisterParams, register
from raypath.components.split import SplitParams, split


class Chat(Params):
    """Settings for supervised fine-tuning on conversations; the sample is reports on bird strikes and their records as
    JSON."""

    read: ReadParams = ReadParams(uri="sample://strikes", label=None, conversations="auto")
    split: SplitParams = SplitParams(valid=0.05, test=0.1)
    inspect: InspectParams = InspectParams()
    preprocess: PreprocessParams = PreprocessParams()
    finetune: FinetuneParams = FinetuneParams(task="text_generation", lora=16)
    evaluate: EvaluateGenerationParams = EvaluateGenerationParams()
    registry: RegisterParams = RegisterParams(name="chat")
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def chat(p: Chat) -> Release:
    """Read, split, choose settings, render and tokenize, fine-tune, evaluate by generating, register; a data report is
    a branch."""
    rows = split(read(p.read), p.split)
    chosen = configure(rows, p.finetune, p.preprocess)
    inspect(rows, p.inspect, chosen.inputs)
    splits = preprocess(rows, p.preprocess, chosen.inputs)
    model = finetune(splits.train, splits.valid, chosen.finetune, p.finetune)
    report = evaluate_generation(model, splits.test, p.evaluate, splits.train)
    return register(model, report, p.registry)
