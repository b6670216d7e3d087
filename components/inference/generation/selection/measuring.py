"""Measurement of the engines of a language model: tokens a second, perplexity, and agreement of greedy answers."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError, ParamsError, RaypathError
from raypath.components.core.files import link
from raypath.components.inference.backends.precision_config import machine
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.evaluation.conversations import choose_rows, read_prompt_rows
from raypath.components.inference.generation.openvino_genai.decoder_graph import unsupported_reason
from raypath.components.inference.generation.openvino_genai.pipeline import missing_package
from raypath.components.inference.generation.selection.choice import (
    Engine,
    EngineChoice,
    EngineMeasurement,
    opening_of,
    read_engine_choice,
    write_engine_choice,
)
from raypath.components.inference.generation.selection.opening import PARAMETERS, on_cpu, open_other
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.inference.generation.vllm.options import missing_package as missing_vllm
from raypath.components.models.bf16 import supports_bf16
from raypath.components.models.chat_template import ChatTemplate

REQUESTS, ROWS, ROUNDS = 16, 32, 2
"""Requests at a time, rows whose perplexity is measured, rounds of the speed."""
TOKENS, ROUND_SECONDS = 32, 2.0
"""Most new tokens of a request, and about the seconds of one request of transformers: a slow model generates fewer."""
POINTS = 4
"""Tokens of each answer that are compared."""
AGREEMENT, GAIN = 0.9, 1.05
"""Least agreement, and least speed relative to transformers."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """Rows of the validation split. prompts: ids. rows: ids of whole conversations. masks: bool, tokens in the loss."""

    prompts: list[list[int]]
    rows: list[list[int]]
    masks: list[Any]

    @classmethod
    def read(cls, folder: Path, data: Dataset) -> Sample:
        """Read rows spread over the split. Raises DataError if it has none with a response."""
        template = ChatTemplate.load(folder)
        conversations = [each.conversation for each in read_prompt_rows(data, choose_rows(data.rows, ROWS))]
        if not conversations:
            raise DataError("the validation split has no responses")
        encoded = template.encode_all(conversations)
        prompts = [list(template.encode_prompt(each.prompt.messages, each.tools)) for each in conversations]
        several = -(-REQUESTS // len(prompts)) * prompts
        return cls(
            several[:REQUESTS], [list(each.ids) for each in encoded], [np.asarray(each.mask) for each in encoded]
        )


def choose(table: Sequence[EngineMeasurement], tolerance: float) -> Engine:
    """Choose the fastest engine whose answers are exact enough, by the geometric mean of its two speeds.

    Another engine than transformers, the first of the table, is at least 5% faster, chooses the same token in 90% of
    the places, and has a perplexity that is at most `tolerance` higher, relatively.
    """
    base = table[0]

    def speed(line: EngineMeasurement) -> float:
        return float(np.sqrt(line.alone * line.together))

    def good(line: EngineMeasurement) -> bool:
        exact = line.agreement >= AGREEMENT and line.perplexity <= base.perplexity * (1 + tolerance)
        return not line.left_out and exact and speed(line) >= GAIN * speed(base)

    return max([base, *(line for line in table[1:] if good(line))], key=speed).engine


def prepare_engine(
    source: Path,
    folder: Path,
    data: Dataset | None,
    threads: int,
    wanted: Engine | Literal["auto"],
    tolerance: float,
    report: Report = lambda _: None,
) -> EngineChoice | None:
    """Write `folder`: a copy of the model folder `source` with generation.json.

    Returns None, without a folder, if there is no choice: auto without data, or for a model that no other engine
    than transformers takes here, or that is small. A folder that an earlier attempt completed is reused.

    Args:
        wanted: An engine, or auto, which measures on `data`, the validation split.

    Raises ParamsError for an engine that does not take this model.
    """
    device = "cpu" if on_cpu("") else "cuda"
    if wanted == "auto" and (data is None or not data.rows or _is_fixed(source, device)):
        return None
    existing = read_engine_choice(folder)
    if existing is not None:
        return existing
    table: tuple[EngineMeasurement, ...] = ()
    if wanted == "auto":
        assert data is not None
        table = measure(source, Sample.read(source, data), threads, report, device)
        wanted = choose(table, tolerance)
    elif why := _reason(source, wanted, device):
        raise ParamsError(f"precision {wanted} is not available: {why}", fix="leave registry.precision at auto")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, copy_function=link)
    choice = EngineChoice(engine=wanted, tolerance=tolerance, machine=machine(device, threads), table=table)
    write_engine_choice(folder, choice)
    return choice


def measure(
    folder: Path, sample: Sample, threads: int, report: Report = lambda _: None, device: str = "cpu"
) -> tuple[EngineMeasurement, ...]:
    """Measure the engines of a device one after another, transformers first: each takes the memory of the model.

    vLLM is measured where it is installed. device: cpu or cuda.
    """
    lines: list[EngineMeasurement] = []
    answers: list[list[int]] = []
    settings = SamplingSettings(max_new_tokens=TOKENS, ignore_stop=True, logprobs=False)
    base: Engine = "bf16" if supports_bf16(device) else "fp32"
    for engine in (base, *_others(device)):
        report(f"measuring {engine}")
        start = time.perf_counter()
        try:
            with _opened(folder, engine, threads, device) as opened:
                seconds = time.perf_counter() - start
                if engine == base:
                    settings = _affordable(opened, sample, settings)
                    answers = [each.ids for each in opened.generate(sample.prompts, settings)]
                line = EngineMeasurement(
                    engine=engine,
                    load_seconds=round(seconds, 3),
                    agreement=1.0 if engine == base else _agreement(opened, sample.prompts, answers),
                    alone=_speed(opened, sample.prompts[:1], settings),
                    together=_speed(opened, sample.prompts, settings),
                    perplexity=_perplexity(opened, sample),
                )
        except RaypathError as error:
            if engine == base:
                raise
            line = EngineMeasurement(engine=engine, left_out=str(error))
        lines.append(line)
    return tuple(lines)


@contextmanager
def _opened(folder: Path, engine: Engine, threads: int, device: str) -> Iterator[Any]:
    how = opening_of(engine, supports_bf16(device))
    made: Any
    if how.name == "transformers":
        made = TransformersEngine.open(folder, how.precision, device)
    else:
        made = open_other(folder, how, device, threads, serving=False)
    try:
        yield made
    finally:
        made.close()
        if device == "cuda":
            import torch

            torch.cuda.empty_cache()  # for the next one, which may be in another process


def _others(device: str) -> tuple[Engine, ...]:
    """Return the engines beside transformers."""
    found: tuple[Engine, ...] = ("openvino", "openvino-int8") if device == "cpu" else ()
    return found if missing_vllm() else (*found, "vllm")


def _affordable(engine: Any, sample: Sample, settings: SamplingSettings) -> SamplingSettings:
    """Return the settings with as many tokens as one request may take seconds."""
    few = replace(settings, max_new_tokens=4)
    engine.generate(sample.prompts[:1], few)
    start = time.perf_counter()
    engine.generate(sample.prompts[:1], few)
    most = int(ROUND_SECONDS * 4 / (time.perf_counter() - start))
    return replace(settings, max_new_tokens=max(POINTS, min(settings.max_new_tokens, most)))


def _speed(engine: Any, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> float:
    """Return tokens a second, the median of the rounds; reading the prompts is part of it."""
    engine.generate(prompts, SamplingSettings(max_new_tokens=1))
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        made = sum(len(each.ids) for each in engine.generate(prompts, settings))
        found.append(made / (time.perf_counter() - start))
    return round(statistics.median(found), 1)


def _agreement(engine: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> float:
    """Return the share of tokens of the answers that the engine chooses after the tokens before them."""
    places = [
        (row, place)
        for row, answer in enumerate(answers)
        for place in np.unique(np.linspace(0, len(answer) - 1, POINTS).astype(int)).tolist()
    ]
    prefixes = [prompts[row] + answers[row][:place] for row, place in places]
    found = engine.generate(prefixes, SamplingSettings(max_new_tokens=1, ignore_stop=True))
    return float(np.mean([each.ids == [answers[row][place]] for each, (row, place) in zip(found, places, strict=True)]))


def _perplexity(engine: Any, sample: Sample) -> float:
    """Return the perplexity of the tokens in the loss."""
    if not isinstance(engine, TransformersEngine):
        rows = [row[: engine.context - 1] for row in sample.rows]
        scores = engine.likelihood(rows)
    else:
        scores = _transformers_scores(engine, [row[: engine.context - 1] for row in sample.rows])
    chosen = [
        np.asarray(each)[np.asarray(mask)[1 : len(each) + 1]] for each, mask in zip(scores, sample.masks, strict=True)
    ]
    return float(np.exp(-np.concatenate(chosen).mean()))


def _transformers_scores(engine: TransformersEngine, rows: Sequence[list[int]]) -> list[Any]:
    """Return the log-probability of each token of each row after the first."""
    import torch

    found = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row], device=engine.model.device)
            scores = torch.log_softmax(engine.model(input_ids=ids).logits[0, :-1].float(), dim=-1)
            found.append(scores.gather(1, ids[0, 1:, None])[:, 0].cpu().numpy())
    return found


def _is_fixed(folder: Path, device: str) -> bool:
    """Return True for a model without another engine than transformers, or too small for one."""
    return all(_reason(folder, each, device) for each in ("openvino", "vllm")) or _parameters(folder) < PARAMETERS


def _reason(folder: Path, engine: str, device: str) -> str:
    """Return why an engine does not take a model, "" if it does, or is to try."""
    if engine == "vllm":
        return missing_vllm()
    if not engine.startswith("openvino"):
        return ""
    return unsupported_reason(_config(folder)) or missing_package() if device == "cpu" else "it is for CPUs"


def _parameters(folder: Path) -> int:
    """Estimate the parameters by the size of the weights, of adapters by that of their base."""
    return sum(path.stat().st_size for path in _base(folder).glob("*.safetensors")) // 4


def _config(folder: Path) -> Any:
    import transformers

    return transformers.AutoConfig.from_pretrained(_base(folder), trust_remote_code=False)


def _base(folder: Path) -> Path:
    from raypath.components.models.adapters import adapter_base, is_adapter

    return adapter_base(folder) if is_adapter(folder) else folder
