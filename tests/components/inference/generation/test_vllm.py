"""vLLM with a tiny decoder: the answers of transformers, and what a service needs of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import Finish, Generated, SamplingSettings
from raypath.components.inference.generation.selection import measuring
from raypath.components.inference.generation.selection.measuring import Sample, measure, prepare_engine
from raypath.components.inference.generation.selection.opening import open_engine, open_other
from raypath.components.inference.generation.streaming_engine import Piece
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.inference.generation.vllm.engine import VllmEngine
from raypath.components.inference.generation.vllm.options import VllmOptions, missing_package
from tests.tiny_chat import chat_folder, chat_model, chat_tokenizer

pytestmark = [
    pytest.mark.skipif(bool(missing_package()), reason=missing_package()),
    pytest.mark.filterwarnings("ignore"),  # of vllm's own imports
]
PROMPTS = [list(range(3, 3 + length)) for length in (1, 9, 4, 30, 70, 2, 9)]
GREEDY = SamplingSettings(max_new_tokens=40)
WIDE = {"head_dim": 32}
"""Narrower heads have no kernel of attention on a CPU."""
SCHEMA = {
    "type": "object",
    "properties": {"bird": {"enum": ["gull", "owl"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["bird", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("vllm") / "model", **WIDE)


@pytest.fixture(scope="module")
def reference() -> TransformersEngine:
    return TransformersEngine(chat_model(**WIDE), chat_tokenizer())


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    """vLLM without a process of its own, and without compiling: milliseconds instead of half a minute."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patched.setenv("TORCHDYNAMO_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[VllmEngine]:
    made = VllmEngine.open(folder, "fp32", "cpu", VllmOptions(cache_bytes=1 << 24, eager=True))
    yield made
    made.close()


@pytest.fixture(scope="module")
def adaptable(folder: Path) -> Iterator[VllmEngine]:
    """An engine with slots for adapters."""
    made = VllmEngine.open(folder, "fp32", "cpu", VllmOptions(adapters=2, cache_bytes=1 << 24, eager=True))
    yield made
    made.close()


def run(engine: VllmEngine) -> dict[str, Piece]:
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
        SamplingSettings(max_new_tokens=25, frequency_penalty=0.7, presence_penalty=0.4),
        SamplingSettings(max_new_tokens=25, stop=frozenset({120})),
        SamplingSettings(max_new_tokens=25, ignore_stop=True),
        SamplingSettings(max_new_tokens=300),
    ],
)
def test_greedy_equals_transformers(
    engine: VllmEngine, reference: TransformersEngine, settings: SamplingSettings
) -> None:
    same(engine.generate(PROMPTS, settings), reference.generate(PROMPTS, settings))


def test_a_seed_draws_the_same_at_any_time(engine: VllmEngine) -> None:
    settings = SamplingSettings(max_new_tokens=20, temperature=0.9, top_p=0.95, top_k=40, min_p=0.01, seed=7)
    alone = engine.generate(PROMPTS[3:4], settings)[0].ids
    together = engine.generate([*PROMPTS, PROMPTS[3]], settings)
    assert together[3].ids == alone
    assert together[7].ids != alone, "an equal prompt has other numbers"
    other = SamplingSettings(max_new_tokens=20, temperature=0.9, seed=8)
    assert engine.generate(PROMPTS[3:4], other)[0].ids != alone


def test_the_most_probable_tokens(engine: VllmEngine) -> None:
    engine.add("a", PROMPTS[1], SamplingSettings(max_new_tokens=6, top_logprobs=3, ignore_stop=True))
    piece = run(engine)["a"]
    assert len(piece.ids) == len(piece.top) == 6
    for token, logprob, top in zip(piece.ids, piece.logprobs, piece.top, strict=True):
        assert top[0][0] == token
        assert top[0][1] == pytest.approx(logprob)
        assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
        assert len(top) == 3


def test_without_log_probabilities(engine: VllmEngine, reference: TransformersEngine) -> None:
    settings = SamplingSettings(max_new_tokens=40, logprobs=False)
    found, wanted = engine.generate(PROMPTS, settings), reference.generate(PROMPTS, GREEDY)
    assert [(each.ids, each.finish) for each in found] == [(each.ids, each.finish) for each in wanted]
    assert not any(each.logprobs for each in found)


def test_requests_join_leave_and_are_counted(engine: VllmEngine, reference: TransformersEngine) -> None:
    before = engine.statistics()
    long = SamplingSettings(max_new_tokens=150, ignore_stop=True)
    engine.add("a", PROMPTS[0], long)
    assert engine.statistics().waiting == 1
    first = engine.step()
    engine.add("b", PROMPTS[1], GREEDY)
    engine.step()
    now = engine.statistics()
    assert (now.waiting, now.running) == (0, 2)
    assert 0 < now.cache_use < 1
    engine.abort("a")
    engine.abort("unknown")
    assert engine.statistics().running == 1
    rest = run(engine)
    assert first[0].request_id == "a"
    assert set(rest) == {"b"}
    assert rest["b"].ids == reference.generate(PROMPTS[1:2], GREEDY)[0].ids[1:], "the first token came before"
    after = engine.statistics()
    assert (after.waiting, after.running) == (0, 0)
    assert after.prompt_tokens - before.prompt_tokens == len(PROMPTS[0]) + len(PROMPTS[1])


def test_the_beginning_of_a_prompt_is_cached(folder: Path, engine: VllmEngine) -> None:
    prompt = [*range(200), 1, 2, 3]
    found = []
    for number in range(2):
        engine.add(str(number), prompt, SamplingSettings(max_new_tokens=2, ignore_stop=True))
        found.append(run(engine)[str(number)])
    assert found[0].cached == 0
    assert found[1].cached == 128
    assert found[0].ids == found[1].ids


def test_a_schema_is_followed(engine: VllmEngine) -> None:
    settings = SamplingSettings(max_new_tokens=60, temperature=1.0, seed=3, grammar=json.dumps(SCHEMA))
    [found] = engine.generate([PROMPTS[2]], settings)
    assert found.finish == Finish.STOP
    made = json.loads(found.text)
    assert made["bird"] in ("gull", "owl")
    assert 0 <= made["count"] <= 99
    with pytest.raises(DataError, match="vLLM does not take the JSON schema"):
        engine.add("x", PROMPTS[2], SamplingSettings(grammar='{"type": "nonsense"}'))
    assert not engine.has_work()


def test_the_likelihood_of_rows(engine: VllmEngine) -> None:
    import torch

    rows = [[*prompt, 100, 101] for prompt in PROMPTS]
    for row, found in zip(rows, engine.likelihood(rows), strict=True):
        with torch.no_grad():
            scores = torch.log_softmax(chat_model(**WIDE)(torch.tensor([row])).logits[0], dim=-1)
        wanted = [float(scores[place, row[place + 1]]) for place in range(len(row) - 1)]
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_what_the_model_cannot_take(engine: VllmEngine) -> None:
    with pytest.raises(DataError, match="is empty"):
        engine.add("x", [], GREEDY)
    with pytest.raises(DataError, match="takes 256 with the answer"):
        engine.add("x", [5] * 256, GREEDY)
    with pytest.raises(DataError, match="outside of the model's vocabulary"):
        engine.add("x", [999], GREEDY)
    with pytest.raises(DataError, match="adapter away is not loaded"):
        engine.add("x", PROMPTS[0], SamplingSettings(adapter="away"))
    with pytest.raises(DataError, match="cannot be loaded beside others"):
        engine.load_adapter("away", Path("away"))
    assert not engine.has_work()


def adapter(folder: Path, seed: int) -> tuple[Path, Any]:
    """A LoRA adapter with random weights, and the model that it is merged into."""
    import peft
    import torch

    made = peft.get_peft_model(
        chat_model(**WIDE), peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    made.save_pretrained(folder)
    return folder, made.merge_and_unload()


def test_adapters_by_request(adaptable: VllmEngine, reference: TransformersEngine, tmp_path: Path) -> None:
    engine = adaptable
    made = [adapter(tmp_path / str(seed), seed) for seed in (1, 2)]
    for name, (folder, _) in zip("ab", made, strict=True):
        engine.load_adapter(name, folder)
    for name, prompt in (("a", 3), ("b", 3), ("", 3), ("a", 4)):
        engine.add(
            f"{name}{prompt}", PROMPTS[prompt], SamplingSettings(max_new_tokens=20, adapter=name, ignore_stop=True)
        )
    found = run(engine)
    settings = SamplingSettings(max_new_tokens=20, ignore_stop=True)
    for name, (_, merged) in zip("ab", made, strict=True):
        wanted = TransformersEngine(merged, chat_tokenizer()).generate([PROMPTS[3]], settings)[0].ids
        assert found[f"{name}3"].ids == wanted
    assert found["3"].ids == reference.generate([PROMPTS[3]], settings)[0].ids
    assert len({tuple(found[each].ids) for each in ("a3", "b3", "3")}) == 3
    # Another adapter of the same name, and what is dropped, answer nothing of before.
    engine.load_adapter("a", made[1][0])
    engine.add("again", PROMPTS[3], SamplingSettings(max_new_tokens=20, adapter="a", ignore_stop=True))
    assert run(engine)["again"].ids == found["b3"].ids
    with pytest.raises(DataError, match="adapter c is one too many: 2 may be loaded"):
        engine.load_adapter("c", made[1][0])
    engine.drop_adapter("a")
    with pytest.raises(DataError, match="adapter a is not loaded"):
        engine.add("x", PROMPTS[0], SamplingSettings(adapter="a"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="vLLM does not load the adapter c"):
        engine.load_adapter("c", tmp_path / "empty")
    assert not engine.has_work()


def test_it_is_measured_and_opened_by_the_choice(folder: Path, tmp_path: Path) -> None:
    """The table of a registration has it where it is installed; an adapter's folder is opened merged."""
    rows = [[*prompt, *range(100, 120)] for prompt in PROMPTS[1:4]]
    sample = Sample(PROMPTS[1:4], rows, [[n >= len(row) - 20 for n in range(len(row))] for row in rows])
    eager = VllmOptions(cache_bytes=1 << 24, eager=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measuring, "open_other", lambda *given, **named: open_other(*given, **named, vllm=eager))
        exact, *_, found = measure(folder, sample, 0)
    assert found.engine == "vllm"
    assert not found.left_out
    assert found.agreement == 1.0
    assert found.perplexity == pytest.approx(exact.perplexity, rel=1e-3)
    assert found.alone > 0
    prepare_engine(folder, tmp_path / "out", None, 0, "vllm", 0.0)
    opened = open_engine(tmp_path / "out", 0, "cpu", vllm=eager)
    assert (opened.name, opened.precision) == ("vllm", "fp32")
    opened.close()
