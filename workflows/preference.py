"""Fine-tune a language model on chosen and rejected responses, and register it if it beats the champion.

fetch -> score_reference -> tune -> finetune -> evaluate_generation -> register
read -> split -> configure -> preprocess -> score_reference

Training starts from the registered version in `fetch.model`, such as one of the workflow `chat`, or without one from
`finetune.base`.
"""

from raypath.components import NonNegative, Params, Release, workflow
from raypath.components.configure import configure
from raypath.components.evaluate_generation import EvaluateGenerationParams, evaluate_generation
from raypath.components.fetch import FetchParams, fetch
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.register import RegisterParams, register
from raypath.components.score_reference import ScoreReferenceParams, score_reference
from raypath.components.split import SplitParams, split
from raypath.components.tune import TuneParams, tune


class Preferences(Params):
    """Settings for prompts with a chosen and a rejected answer each."""

    read: ReadParams = ReadParams(uri="", label=None, conversations="auto")
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    fetch: FetchParams = FetchParams()
    preprocess: PreprocessParams = PreprocessParams()
    tune: TuneParams = TuneParams(trials=0)
    finetune: FinetuneParams = FinetuneParams(task="preference", lora=16)
    evaluate: EvaluateGenerationParams = EvaluateGenerationParams()
    registry: RegisterParams = RegisterParams(name="chat")
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def preference(p: Preferences) -> Release:
    """Read, split, tokenize, score the reference, fine-tune on preferences, evaluate by generating, register."""
    rows = split(read(p.read), p.split)
    chosen = configure(rows, p.finetune, p.preprocess)
    splits = preprocess(rows, p.preprocess, chosen.inputs)
    start = fetch(p.fetch) if p.fetch.model else None
    splits = score_reference(splits, ScoreReferenceParams.of(p.finetune), chosen.finetune, start)
    best = tune(splits.train, splits.valid, p.finetune, p.tune, start, chosen.finetune)
    model = finetune(splits.train, splits.valid, best, p.finetune, start)
    report = evaluate_generation(model, splits.test, p.evaluate, splits.train, start)
    return register(model, report, p.registry)
