"""Requests and responses in vLLM's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raypath.components.inference.generation.engine import SamplingSettings, request_seed
from raypath.components.inference.generation.streaming_engine import TopTokens


def sampling_params(
    vllm: Any, prompt: Sequence[int], settings: SamplingSettings, stop: frozenset[int], limit: int, repeat: int
) -> Any:
    """Return vLLM's SamplingParams.

    Args:
        stop: ids that end the response.
        limit: most new tokens.
        repeat: how often the prompt occurred before it in the same call.

    Raises ValueError for a combination that vLLM does not take.
    """
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return vllm.SamplingParams(
        max_tokens=limit,
        temperature=float(settings.temperature),
        top_p=float(settings.top_p),
        top_k=settings.top_k or -1,
        min_p=float(settings.min_p),
        repetition_penalty=float(settings.repetition_penalty),
        presence_penalty=float(settings.presence_penalty),
        frequency_penalty=float(settings.frequency_penalty),
        seed=request_seed(settings.seed, repeat, prompt) if settings.temperature else None,
        stop_token_ids=sorted(stop),
        ignore_eos=True,  # the ids above are all that end a response
        logprobs=settings.top_logprobs if settings.logprobs or settings.top_logprobs else None,
        structured_outputs=StructuredOutputsParams(json=settings.grammar) if settings.grammar else None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def scoring_params(vllm: Any) -> Any:
    """Return SamplingParams that give the log-probabilities of the prompt."""
    from vllm.sampling_params import RequestOutputKind

    return vllm.SamplingParams(
        max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
    )


def top_tokens(found: Mapping[int, Any], count: int) -> TopTokens:
    """Return the most probable tokens of a position, in falling order. found: vLLM's Logprob of each id."""
    ranked = sorted((each.rank, token, float(each.logprob)) for token, each in found.items())
    return [(token, logprob) for rank, token, logprob in ranked if rank <= count]
