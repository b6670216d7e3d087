"""Golden answers of a language model: recorded when a version is registered, checked before it serves requests.

examples.json in the version's folder has the tokens of some made-up prompts, the model's greedy answers, the
log-probability of each token and its lead over the second. Another engine or precision may choose the second token
where the lead is small; from there on the answers differ, and are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import DataError
from raypath.components.core.files import write_atomically
from raypath.components.inference.golden_examples import FILE

if TYPE_CHECKING:
    from raypath.components.inference.generation.engine import GenerationEngine

PROMPTS = ("Hello!", "A lovely cup of tea", "Es kam zu spät 👍", "List three numbers. " * 8)
TOKENS = 8
"""Tokens of an answer."""
EXACT, ROUGH = 0.05, 0.75
"""Tolerance of log-probabilities in nats: in float32, and in bf16 or 8 bits."""
_FIX = "register the model again; the previous version stays in service"


def record(folder: Path) -> None:
    """Write examples.json into a model folder. Raises DataError for a folder that does not open."""
    from raypath.components.inference.generation.engine import SamplingSettings
    from raypath.components.inference.generation.transformers_engine import TransformersEngine
    from raypath.components.models.chat_template import ChatTemplate

    template = ChatTemplate.load(folder)
    engine = TransformersEngine.open(folder, device="cpu")
    prompts = [_shortened(template.encode_prompt([{"role": "user", "content": text}]), engine) for text in PROMPTS]
    answers = engine.generate(prompts, SamplingSettings(max_new_tokens=TOKENS))
    examples = []
    for prompt, answer in zip(prompts, answers, strict=True):
        leads = _leads(engine.model, prompt, answer.ids)
        examples.append({"prompt": prompt, "ids": answer.ids, "logprobs": answer.logprobs, "leads": leads})
    write_atomically(folder / FILE, json.dumps({"generation": examples, "precision": engine.precision}))


def check_answers(folder: Path, engine: GenerationEngine, precision: str) -> None:
    """Raise DataError if the answers differ from the recorded ones; without examples.json nothing is checked.

    precision: of the engine.
    """
    from raypath.components.inference.generation.engine import SamplingSettings

    examples, recorded = _read(folder)
    if not examples:
        return
    found = engine.generate([each["prompt"] for each in examples], SamplingSettings(max_new_tokens=TOKENS))
    allowed = EXACT if precision == recorded == "fp32" else ROUGH
    for number, (known, answer) in enumerate(zip(examples, found, strict=True), 1):
        off = _difference(known, answer.ids, answer.logprobs, allowed)
        if not off <= allowed:
            reason = f"its answer to example {number} is off by {off:.3g} nats; at most {allowed:g} are allowed"
            raise DataError(reason, fix=_FIX)


def _difference(known: dict[str, Any], ids: Sequence[int], logprobs: Sequence[float], allowed: float) -> float:
    """Return the largest difference of log-probabilities, up to a token that is not the recorded one."""
    worst = 0.0
    for n, wanted in enumerate(known["ids"]):
        if n >= len(ids) or ids[n] != wanted:
            lead = float(known["leads"][n])
            # Two errors, of the first and of the second token, may make up for the lead.
            return max(worst, lead if lead > 2 * allowed else 0.0)
        off = abs(float(logprobs[n]) - float(known["logprobs"][n]))
        if not off <= allowed:  # NaN as well
            return off
        worst = max(worst, off)
    return worst


def _leads(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    """Return by how much the log-probability of each token is above that of the second, in nats."""
    import torch

    if not answer:
        return []
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
    best = logits.topk(2, dim=-1).values  # [n, 2]
    return [float(lead) for lead in (best[:, 0] - best[:, 1])]


def _shortened(prompt: list[int], engine: Any) -> list[int]:
    """Return the end of a prompt that leaves room for an answer."""
    return prompt[-max(engine.context - TOKENS - 1, 1) :]


def _read(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the examples and the precision of the engine that answered them."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return found["generation"], found["precision"]
    except FileNotFoundError:
        return [], ""
    except (ValueError, KeyError):
        raise DataError(f"its {FILE} is corrupt", fix=_FIX) from None
