"""openvino-genai with a tiny decoder of each kind: the answers of transformers, and what only this engine has."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import Finish, Generated, SamplingSettings
from raypath.components.inference.generation.openvino_genai.decoder_graph import unsupported_reason
from raypath.components.inference.generation.openvino_genai.engine import OpenVinoGenaiEngine
from raypath.components.inference.generation.streaming_engine import Piece
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from tests.tiny_chat import chat_folder, chat_model, chat_tokenizer

PROMPTS = [list(range(3, 3 + length)) for length in (1, 9, 4, 30, 70, 2, 9)]
GREEDY = SamplingSettings(max_new_tokens=40)
SCHEMA = {
    "type": "object",
    "properties": {"bird": {"enum": ["gull", "owl"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["bird", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def reference() -> TransformersEngine:
    return TransformersEngine(chat_model(), chat_tokenizer())


@pytest.fixture(scope="module")
def engine() -> Any:
    made = OpenVinoGenaiEngine(chat_model(), chat_tokenizer(), "fp32", 1, cache_tokens=4_096)
    yield made
    made.close()


def run(engine: OpenVinoGenaiEngine) -> dict[str, Piece]:
    """Step until all is done, and join the pieces of each request."""
    found: dict[str, Piece] = {}
    while engine.has_work():
        for piece in engine.step():
            found.setdefault(piece.request_id, Piece(piece.request_id)).extend(piece)
    return found


def same(found: list[Generated], wanted: list[Generated]) -> None:
    """Assert equal answers, and log-probabilities up to rounding."""
    assert [(each.ids, each.finish, each.text) for each in found] == [
        (each.ids, each.finish, each.text) for each in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        GREEDY,
        SamplingSettings(max_new_tokens=25, repetition_penalty=1.3),
        SamplingSettings(max_new_tokens=25, stop=frozenset({120})),
        SamplingSettings(max_new_tokens=25, ignore_stop=True),
    ],
)
def test_greedy_equals_transformers(
    engine: OpenVinoGenaiEngine, reference: TransformersEngine, settings: SamplingSettings
) -> None:
    found, wanted = engine.generate(PROMPTS, settings), reference.generate(PROMPTS, settings)
    if settings.repetition_penalty == 1:
        same(found, wanted)
    assert [each.ids for each in found] == [each.ids for each in wanted]


def test_without_log_probabilities_the_tokens_are_the_same(engine: OpenVinoGenaiEngine) -> None:
    for settings in (GREEDY, replace(GREEDY, stop=frozenset({120}))):
        found = engine.generate(PROMPTS, replace(settings, logprobs=False))
        assert [each.ids for each in found] == [each.ids for each in engine.generate(PROMPTS, settings)]
        assert not any(each.logprobs for each in found)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Qwen2", {}),
        ("Qwen3", {"head_dim": 16}),
        ("Mistral", {"sliding_window": None, "num_key_value_heads": 4}),
        ("Llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}, "attention_bias": True}),
    ],
)
def test_other_decoders(name: str, more: dict[str, object]) -> None:
    import torch
    import transformers

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "vocab_size": 259, "initializer_range": 0.4, "eos_token_id": 258}
    config = getattr(transformers, f"{name}Config")(**(shape | {"max_position_embeddings": 256} | more))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith("bias"):
                weight.normal_(std=0.3)
    found = OpenVinoGenaiEngine(model, chat_tokenizer(), "fp32", 1, 2_048, serving=False).generate(PROMPTS, GREEDY)
    same(found, TransformersEngine(model, chat_tokenizer()).generate(PROMPTS, GREEDY))


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("GPT2", {}, "type gpt2"),
        ("Mistral", {"sliding_window": 8}, "sliding window"),
        ("Llama", {"hidden_act": "relu"}, "activation relu"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "kind dynamic"),
    ],
)
def test_decoders_without_a_graph(name: str, more: dict[str, object], why: str) -> None:
    import transformers

    assert why in unsupported_reason(getattr(transformers, f"{name}Config")(**more))


def test_a_seed_draws_the_same_at_any_time(engine: OpenVinoGenaiEngine) -> None:
    settings = SamplingSettings(max_new_tokens=20, temperature=0.9, top_p=0.9, top_k=40, min_p=0.01, seed=5)
    together = [each.ids for each in engine.generate(PROMPTS[:6], settings)]
    assert together == [engine.generate([each], settings)[0].ids for each in PROMPTS[:6]]
    other = SamplingSettings(max_new_tokens=20, temperature=0.9, seed=6)
    assert [each.ids for each in engine.generate(PROMPTS[:6], other)] != together
    twice = engine.generate([PROMPTS[3]] * 2, settings)
    assert twice[0].ids != twice[1].ids, "equal prompts in one call are drawn anew"


def test_an_aborted_request_is_gone_after_a_step(engine: OpenVinoGenaiEngine) -> None:
    for name in "ab":
        engine.add(name, PROMPTS[3], SamplingSettings(max_new_tokens=200, ignore_stop=True))
    engine.step()
    assert engine.statistics().running == 2
    engine.abort("a")
    assert {each.request_id for each in engine.step()} == {"b"}
    assert engine.statistics().running == 1
    engine.abort("b")
    engine.abort("b")
    engine.step()
    assert not engine.has_work()


def test_a_prompt_that_was_read_is_not_read_again() -> None:
    model = chat_model(hidden_size=256, intermediate_size=512, context=8_192)
    engine = OpenVinoGenaiEngine(model, chat_tokenizer(), "fp32", 1, cache_tokens=16_384)
    prompt = [3 + n * n % 200 for n in range(6_400)]
    seconds, cached = [], []
    for name, given in (("a", prompt), ("b", prompt), ("c", [*prompt[:3_200], 7, *prompt[3_201:]])):
        engine.add(name, given, SamplingSettings(max_new_tokens=1))
        start = time.perf_counter()
        cached.append(run(engine)[name].cached)
        seconds.append(time.perf_counter() - start)
    assert cached == [0, 6_368, 3_200]
    assert engine.statistics().cached_tokens == sum(cached)
    assert engine.statistics().prompt_tokens == 3 * len(prompt)
    assert seconds[1] < seconds[0] / 3
    assert seconds[2] < seconds[0]


def test_answers_follow_a_schema(engine: OpenVinoGenaiEngine) -> None:
    import jsonschema

    settings = SamplingSettings(max_new_tokens=120, temperature=1.0, grammar=json.dumps(SCHEMA))
    for row, prompt in enumerate(PROMPTS):
        engine.add(str(row), prompt, settings)
    found = run(engine)
    ended = [each for each in found.values() if each.finish is Finish.STOP]
    assert len(ended) > 3
    for piece in ended:
        jsonschema.validate(json.loads(chat_tokenizer().decode(piece.ids)), SCHEMA)


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('{"type": "nonsense"}', "the JSON schema is none"),
        ("[1", "the JSON schema is none"),
        ("[" * 99_999, "the JSON schema is none"),
        ('{"$ref": "#/nowhere"}', "the JSON schema has no grammar"),
        ('{"type": "string", "pattern": "(("}', "the JSON schema "),
    ],
)
def test_an_impossible_schema_fails_alone(
    engine: OpenVinoGenaiEngine, reference: TransformersEngine, grammar: str, said: str
) -> None:
    engine.add("a", PROMPTS[1], GREEDY)
    first = engine.step()
    with pytest.raises(DataError, match=said):
        engine.add("b", PROMPTS[0], SamplingSettings(grammar=grammar))
    engine.add("c", PROMPTS[2], SamplingSettings(max_new_tokens=3, grammar=json.dumps(SCHEMA)))
    found = run(engine)
    assert first[0].ids + found["a"].ids == reference.generate([PROMPTS[1]], GREEDY)[0].ids
    assert len(found["c"].ids) == 3


def test_likelihood_is_that_of_a_forward_pass() -> None:
    import torch

    model = chat_model()
    engine = OpenVinoGenaiEngine(model, chat_tokenizer(), "fp32", 1, 2_048, serving=False)
    rows = [PROMPTS[4], PROMPTS[3], PROMPTS[4]]
    for row, found in zip(rows, engine.likelihood(rows), strict=True):
        with torch.no_grad():
            scores = torch.log_softmax(model(torch.tensor([row])).logits[0], dim=-1)
        np.testing.assert_allclose(found, [float(scores[n, token]) for n, token in enumerate(row[1:])], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "prompt", "said"),
    [
        (GREEDY, [], "is empty"),
        (GREEDY, [259], "outside of the model's vocabulary"),
        (GREEDY, [1] * 256, "the model takes 256"),
        (SamplingSettings(adapter="polite"), [1], "adapter polite cannot be loaded"),
        (SamplingSettings(top_logprobs=5), [1], "of the chosen token alone"),
    ],
)
def test_requests_that_are_refused(
    engine: OpenVinoGenaiEngine, settings: SamplingSettings, prompt: list[int], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        engine.add("a", prompt, settings)
    assert not engine.has_work()


def test_a_prompt_beyond_the_cache_is_refused() -> None:
    small = OpenVinoGenaiEngine(chat_model(), chat_tokenizer(), "fp32", 1, cache_tokens=64, serving=False)
    with pytest.raises(DataError, match="the model takes 64"):
        small.generate([[1] * 64], GREEDY)
    found = small.generate([PROMPTS[3]] * 4, SamplingSettings(max_new_tokens=60, ignore_stop=True))
    assert [len(each.ids) for each in found] == [34] * 4, "requests take turns where the cache is full"


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precisions(tmp_path: Path, reference: TransformersEngine, precision: Any) -> None:
    engine = OpenVinoGenaiEngine.open(chat_folder(tmp_path / "model"), precision, 1, serving=False)
    rows = [prompt for prompt in PROMPTS if len(prompt) > 3]
    exact = OpenVinoGenaiEngine.open(tmp_path / "model", "fp32", 1, serving=False).likelihood(rows)
    found = engine.likelihood(rows)
    difference = np.abs(np.concatenate(found) - np.concatenate(exact))
    assert 0 < difference.max() < 1
    assert difference.mean() < 0.2
