"""Fine-tune a language model on your own conversations, and serve it if it beats the champion.

read -> split -> configure -> preprocess -> finetune -> evaluate_generation -> register -> serve
                           -> inspect

Settings that are "auto" follow from the data; the sample, and only it, has a short training, so that the first run
takes minutes (`components/configuration/samples.py`).
"""

from raypath.components import Endpoint, NonNegative, Params, workflow
from raypath.components.configure import configure
from raypath.components.evaluate_generation import evaluate_generation
from raypath.components.evaluation.generation.params import EvaluateGenerationParams
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


class Chat(Params):
    """Settings for supervised fine-tuning on conversations; the sample is reports on bird strikes and their records as
    JSON."""

    read: ReadParams = ReadParams(uri="sample://strikes", label=None, conversations="auto")
    redact: RedactParams = RedactParams()
    split: SplitParams = SplitParams(valid=0.05, test=0.1)
    inspect: InspectParams = InspectParams()
    preprocess: PreprocessParams = PreprocessParams()
    finetune: FinetuneParams = FinetuneParams(task="text_generation", lora=16)
    evaluate: EvaluateGenerationParams = EvaluateGenerationParams()
    registry: RegisterParams = RegisterParams(name="chat")
    serve: ServeParams = ServeParams(max_characters=400_000, max_queue_seconds=30.0, request_timeout=300.0)
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def chat(p: Chat) -> Endpoint:
    """Read, split, choose settings, render and tokenize, fine-tune, evaluate by generating, register, serve; a data
    report is a branch."""
    data = read(p.read)
    rows = split(redact(data, p.redact) if p.redact.enabled else data, p.split)
    chosen = configure(rows, p.finetune, p.preprocess)
    inspect(rows, p.inspect, chosen.inputs)
    splits = preprocess(rows, p.preprocess, chosen.inputs)
    model = finetune(splits.train, splits.valid, chosen.finetune, p.finetune)
    report = evaluate_generation(model, splits.test, p.evaluate, splits.train)
    return serve(register(model, report, p.registry, splits.valid), p.serve)
