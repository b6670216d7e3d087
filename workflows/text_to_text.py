"""Fine-tune an encoder-decoder on sources and targets, such as translations or summaries, and register it if it beats
the champion.

read -> split -> configure -> preprocess -> finetune -> evaluate_generation -> register

There is no base in a package: `finetune.base` is a T5, a BART, a Marian or another encoder-decoder.
"""

from raypath.components import NonNegative, Params, Release, workflow
from raypath.components.configure import configure
from raypath.components.evaluate_generation import evaluate_generation
from raypath.components.evaluation.generation.params import EvaluateGenerationParams
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.redact import RedactParams, redact
from raypath.components.register import RegisterParams, register
from raypath.components.split import SplitParams, split


class TextToText(Params):
    """Settings for rows of a source and a target text."""

    read: ReadParams = ReadParams(uri="", text="source", label="target", kind="text")
    redact: RedactParams = RedactParams()
    split: SplitParams = SplitParams(valid=0.05, test=0.1)
    preprocess: PreprocessParams = PreprocessParams()
    finetune: FinetuneParams = FinetuneParams(task="text_to_text")
    evaluate: EvaluateGenerationParams = EvaluateGenerationParams()
    registry: RegisterParams = RegisterParams(name="text-to-text")
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def text_to_text(p: TextToText) -> Release:
    """Read, split, choose settings, tokenize sources and targets, fine-tune, evaluate by generating, register."""
    data = read(p.read)
    rows = split(redact(data, p.redact) if p.redact.enabled else data, p.split)
    chosen = configure(rows, p.finetune, p.preprocess)
    splits = preprocess(rows, p.preprocess, chosen.inputs)
    model = finetune(splits.train, splits.valid, chosen.finetune, p.finetune)
    report = evaluate_generation(model, splits.test, p.evaluate, splits.train)
    return register(model, report, p.registry)
