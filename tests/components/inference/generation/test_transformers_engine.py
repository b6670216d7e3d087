"""Batches of prompts give the answers that each prompt has alone, and those of transformers' own `generate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.generation import transformers_engine
from raypath.components.inference.generation.batching.kv_cache import PreallocatedLayer, bytes_per_token, new_cache
from raypath.components.inference.generation.engine import Finish, Generated, SamplingSettings
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from tests.tiny_chat import chat_folder, chat_model, chat_tokenizer

PROMPTS = [list(range(3, 3 + length)) for length in (1, 9, 4, 30, 17, 2, 9)]
GREEDY = SamplingSettings(max_new_tokens=40)


def _ids(answers: list[Generated]) -> list[list[int]]:
    return [each.ids for each in answers]


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(chat_model(), chat_tokenizer())


def test_a_batch_gives_what_each_prompt_gives_alone(engine: TransformersEngine) -> None:
    together = engine.generate(PROMPTS, GREEDY)
    alone = [engine.generate([prompt], GREEDY)[0] for prompt in PROMPTS]
    assert [each.ids for each in together] == [each.ids for each in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    assert len({tuple(each.ids) for each in together}) > 4, "answers that are all alike would prove nothing"


def test_sampled_answers_do_not_depend_on_the_batch(engine: TransformersEngine) -> None:
    settings = SamplingSettings(max_new_tokens=30, temperature=0.9, top_p=0.9, top_k=40, min_p=0.01, seed=5)
    together = engine.generate(PROMPTS, settings)
    assert [each.ids for each in together[:6]] == [engine.generate([each], settings)[0].ids for each in PROMPTS[:6]]
    other = engine.generate(PROMPTS, SamplingSettings(max_new_tokens=30, temperature=0.9, seed=6))
    assert [each.ids for each in other] != [each.ids for each in together]
    twice = engine.generate([PROMPTS[3]] * 2, settings)
    assert twice[0].ids != twice[1].ids, "equal prompts in one call are drawn anew"


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_transformers(engine: TransformersEngine, penalty: float) -> None:
    import torch

    settings = SamplingSettings(max_new_tokens=25, repetition_penalty=penalty)
    for prompt, answer in zip(PROMPTS, engine.generate(PROMPTS, settings), strict=True):
        ids = torch.tensor([prompt])
        wanted = engine.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=25, repetition_penalty=penalty
        )[0, len(prompt) :].tolist()
        ended = wanted[-1] == 258
        assert answer.ids == wanted[: -1 if ended else None]
        assert answer.finish == (Finish.STOP if ended else Finish.LENGTH)


def test_log_probabilities_are_those_of_a_forward_pass(engine: TransformersEngine) -> None:
    import torch

    answer = engine.generate([PROMPTS[1]], GREEDY)[0]
    ids = torch.tensor([PROMPTS[1] + answer.ids])
    with torch.no_grad():
        scores = torch.log_softmax(engine.model(ids).logits[0], dim=-1)
    start = len(PROMPTS[1])
    wanted = [float(scores[start - 1 + n, token]) for n, token in enumerate(answer.ids)]
    np.testing.assert_allclose(answer.logprobs, wanted, atol=1e-4)


def test_a_stop_token_ends_an_answer_and_is_no_part_of_it(engine: TransformersEngine) -> None:
    plain = engine.generate([PROMPTS[0]], GREEDY)[0]
    token = plain.ids[5]
    stopped = engine.generate([PROMPTS[0]], SamplingSettings(max_new_tokens=40, stop=frozenset({token})))[0]
    assert stopped.ids == plain.ids[: plain.ids.index(token)]
    assert stopped.finish == "stop"
    assert len(stopped.logprobs) == len(stopped.ids)
    assert plain.text == chat_tokenizer().decode(plain.ids, skip_special_tokens=True)


def test_answers_end_with_the_context() -> None:
    short = TransformersEngine(chat_model(context=32), chat_tokenizer())
    answers = short.generate([PROMPTS[3], PROMPTS[0]], GREEDY)
    assert len(answers[0].ids) <= 2
    assert len(answers[1].ids) <= 31


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "prompt 0 is empty"),
        ([1] * 256, "has 256 tokens, and the model takes 256 with the answer"),
        ([259], "outside of the model's vocabulary of 259"),
        ([-1], "outside of the model's vocabulary"),
    ],
)
def test_prompts_that_no_model_takes(engine: TransformersEngine, prompt: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        engine.generate([prompt], GREEDY)


def test_batches_are_bounded_by_rows_and_memory(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transformers_engine.MOST_ROWS, "cpu", 3)
    wanted = engine.generate(PROMPTS, GREEDY)
    assert [len(batch) for batch in engine._batches(PROMPTS, [40] * 7)] == [3, 3, 1]
    monkeypatch.setattr(transformers_engine, "MEMORY_SHARE", 1e-12)
    assert [len(batch) for batch in engine._batches(PROMPTS, [40] * 7)] == [1] * 7
    seen: list[tuple[int, int]] = []
    assert _ids(engine.generate(PROMPTS, GREEDY, lambda *done: seen.append(done))) == _ids(wanted)
    assert seen[-1] == (7, 7)


def test_a_batch_without_memory_is_divided(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from raypath.components.inference.generation.batching import decoding

    wanted, sizes, plain = engine.generate(PROMPTS, GREEDY), [], decoding.decode

    def scarce(forward: decoding.Forward, answers: list[decoding.Answer]) -> None:
        sizes.append(len(answers))
        if len(answers) > 2:
            raise torch.OutOfMemoryError
        plain(forward, answers)

    monkeypatch.setattr(decoding, "decode", scarce)
    assert _ids(engine.generate(PROMPTS, GREEDY)) == _ids(wanted)
    assert sizes[:3] == [7, 3, 1]


def test_a_folder_opens_in_bf16_or_fp32(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path / "model")
    assert str(TransformersEngine.open(folder, "bf16", "cpu").model.dtype) == "torch.bfloat16"
    opened = TransformersEngine.open(folder, device="cpu")  # the tests' environment disables bf16
    assert str(opened.model.dtype) == "torch.float32"
    assert opened.generate(PROMPTS, GREEDY) == TransformersEngine(chat_model(), chat_tokenizer()).generate(
        PROMPTS, GREEDY
    )
    (folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match="does not open as a language model"):
        TransformersEngine.open(folder, device="cpu")


def test_the_cache_grows_and_keeps_rows() -> None:
    import torch

    config = chat_model().config
    cache = new_cache(config, 3)
    assert [type(layer) for layer in cache.layers] == [PreallocatedLayer] * 2
    keys = torch.randn(3, 2, 5, 8)
    for start, end in ((0, 2), (2, 3), (3, 4), (4, 5)):
        found, values = cache.layers[0].update(keys[:, :, start:end], 2 * keys[:, :, start:end])
    torch.testing.assert_close(found, keys)
    torch.testing.assert_close(values, 2 * keys)
    cache.layers[0].reorder_cache(torch.tensor([2, 0]))
    torch.testing.assert_close(cache.layers[0].keys, keys[[2, 0]])
    assert cache.layers[0].get_seq_length() == 5
    assert bytes_per_token(config, 2) == 2 * 2 * 2 * 8 * 2


@pytest.mark.parametrize("name", ["GPT2", "Mistral", "Gemma2", "Bloom"])
def test_other_decoders(name: str) -> None:
    """Windows, positions without rotation, and none at all."""
    engine = other_decoder(name)
    together = engine.generate(PROMPTS, GREEDY)
    assert [each.ids for each in together] == [engine.generate([each], GREEDY)[0].ids for each in PROMPTS]


def other_decoder(name: str) -> TransformersEngine:
    """An engine of another architecture than Llama."""
    import torch
    import transformers

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "vocab_size": 259, "initializer_range": 0.4}
    more: dict[str, dict[str, object]] = {
        "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
        "Mistral": {"sliding_window": 8},
        "Gemma2": {"sliding_window": 8, "head_dim": 8},
        "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128, "bos_token_id": 0},
        "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "Mamba": {"state_size": 4},
    }
    config = getattr(transformers, f"{name}Config")(**(shape | more[name] | {"eos_token_id": 258, "pad_token_id": 0}))
    torch.manual_seed(0)
    return TransformersEngine(transformers.AutoModelForCausalLM.from_config(config), chat_tokenizer())
