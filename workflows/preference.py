"""Fine-tune a language model on chosen and rejected responses, and register it if it beats the champion.

read -> split -> configure -> preprocess -> score_reference -> tune -> finetune -> evaluate_generation -> register
fetch -> configure -> inspect

Training starts from the champion of `registry.name`, such as a version of the workflow `chat`, or from the version in
`fetch.model`; where there is none, or with `finetune.base`, from a base.
"""

from raypath.components import NonNegative, Params, Release, workflow
from raypath.components.configure import configure
from raypath.components.evaluate_generation import evaluate_generation
from raypath.components.evaluation.generation.params import EvaluateGenerationParams
from raypath.components.fetch import FetchParams, fetch
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.redact import RedactParams, redact
from raypath.components.register import RegisterParams, register
from raypath.components.score_reference import ScoreReferenceParams, score_reference
from raypath.components.split import SplitParams, split
from raypath.components.tune import TuneParams, tune


class Preferences(Params):
    """Settings for prompts with a chosen and a rejected answer each; the sample is reports on bird strikes, with their
    records as JSON and records with a wrong field."""

    read: ReadParams = ReadParams(uri="sample://strike_pairs", label=None, conversations="auto")
    redact: RedactParams = RedactParams()
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    fetch: FetchParams = FetchParams(model="auto")
    inspect: InspectParams = InspectParams()
    preprocess: PreprocessParams = PreprocessParams()
    tune: TuneParams = TuneParams(trials=0)
    finetune: FinetuneParams = FinetuneParams(task="preference", lora=16)
    evaluate: EvaluateGenerationParams = EvaluateGenerationParams()
    registry: RegisterParams = RegisterParams(name="chat")
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def preference(p: Preferences) -> Release:
    """Read, split, tokenize, score the reference, fine-tune on preferences, evaluate, register; a data
    report is a branch."""
    data = read(p.read)
    rows = split(redact(data, p.redact) if p.redact.enabled else data, p.split)
    source = p.fetch.resolved(p.registry.name, p.finetune.base)
    start = fetch(source) if source.model else None
    chosen = configure(rows, p.finetune, p.preprocess, start)
    inspect(rows, p.inspect, chosen.inputs)
    splits = preprocess(rows, p.preprocess, chosen.inputs)
    splits = score_reference(splits, ScoreReferenceParams.of(p.finetune), chosen.inputs, start)
    best = tune(splits.train, splits.valid, p.finetune, p.tune, start, chosen.finetune)
    model = finetune(splits.train, splits.valid, best, p.finetune, start)
    report = evaluate_generation(model, splits.test, p.evaluate, splits.train, start)
    return register(model, report, p.registry, splits.valid)
