"""Requests in the form of openvino-genai: tokens, sampling settings, JSON schemas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import SamplingSettings, request_seed

NO_TOKEN = 2**31
"""Id of no token: without a stop token, the pipeline takes the tokenizer's, or rejects the request."""

_LEAST = 1e-6


def as_tensor(prompt: Sequence[int]) -> Any:
    """Return token ids as a tensor of OpenVINO, int64 [1, T]."""
    from openvino import Tensor

    return Tensor(np.asarray([prompt], np.int64))


def request_config(
    genai: Any, prompt: Sequence[int], settings: SamplingSettings, stop: frozenset[int], limit: int, repeat: int
) -> Any:
    """Return a GenerationConfig.

    Args:
        stop: ids that end the response.
        limit: most new tokens.
        repeat: how often the prompt occurred before it in the same call; see `Sampler`.

    Raises DataError for the most probable tokens, of which the engine returns the chosen one.
    """
    if settings.top_logprobs > 1 or (settings.top_logprobs and settings.temperature):
        what = "the engine openvino-genai returns the log-probability of the chosen token alone"
        raise DataError(what, fix="leave top_logprobs at 0")
    config = _config(genai, stop)
    config.max_new_tokens = limit
    # The softmax over the vocabulary is a tenth of the processor time of a batch.
    config.logprobs = int(settings.logprobs)
    config.repetition_penalty = float(settings.repetition_penalty)
    config.presence_penalty = float(settings.presence_penalty)
    config.frequency_penalty = float(settings.frequency_penalty)
    if settings.temperature:
        config.do_sample, config.temperature = True, float(settings.temperature)
        # Of the bounds 0 and 1, which the pipeline rejects, these draw from the same tokens.
        config.top_p, config.min_p = max(float(settings.top_p), _LEAST), min(float(settings.min_p), 1 - _LEAST)
        config.rng_seed = request_seed(settings.seed, repeat, prompt)
        if settings.top_k:
            config.top_k = settings.top_k
    if settings.grammar:
        config.structured_output_config = genai.StructuredOutputConfig(json_schema=settings.grammar)
    return config


def scoring_config(genai: Any) -> Any:
    """Return a GenerationConfig that generates nothing, and returns the log-probabilities of the prompt."""
    config = _config(genai, frozenset())
    config.max_new_tokens, config.echo = 0, True
    return config


def _config(genai: Any, stop: frozenset[int]) -> Any:
    config = genai.GenerationConfig()
    config.apply_chat_template, config.logprobs = False, 1
    config.stop_token_ids = set(stop) or {NO_TOKEN}
    config.set_eos_token_id(min(config.stop_token_ids))
    return config
