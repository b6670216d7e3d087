"""Rows that join and leave a running batch get the answers that they have alone; streams fail as they should."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.generation import transformers_engine
from raypath.components.inference.generation.async_engine import AsyncEngine, EngineFault
from raypath.components.inference.generation.engine import Finish, SamplingSettings
from raypath.components.inference.generation.streaming_engine import Piece
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from tests.components.inference.generation.test_transformers_engine import other_decoder
from tests.tiny_chat import chat_model, chat_tokenizer

PROMPTS = [list(range(3, 3 + length)) for length in (1, 9, 4, 30, 17, 2)]
GREEDY = SamplingSettings(max_new_tokens=40)
SAMPLED = SamplingSettings(max_new_tokens=30, temperature=0.9, top_p=0.9, seed=5)


@pytest.fixture
def engine() -> TransformersEngine:
    return TransformersEngine(chat_model(), chat_tokenizer())


@pytest.fixture(scope="module")
def reference() -> TransformersEngine:
    """The same model, in an engine that stays open."""
    return TransformersEngine(chat_model(), chat_tokenizer())


def run(engine: TransformersEngine, before: Callable[[int], None] = lambda step: None) -> dict[str, Piece]:
    """Step until all is done, and join the pieces of each request. before: called before each step."""
    found: dict[str, Piece] = {}
    step = 0
    before(step)
    while engine.has_work():
        for piece in engine.step():
            if piece.request_id in found:
                found[piece.request_id].extend(piece)
            else:
                found[piece.request_id] = piece
        step += 1
        before(step)
    return found


def staggered(engine: TransformersEngine, settings: list[SamplingSettings]) -> dict[str, Piece]:
    """Add a prompt every third step."""

    def add(step: int) -> None:
        row = step // 3
        if step % 3 == 0 and row < len(PROMPTS):
            engine.add(str(row), PROMPTS[row], settings[row])

    return run(engine, add)


@pytest.mark.parametrize("order", [1, -1])
def test_rows_that_join_get_the_answers_they_have_alone(engine: TransformersEngine, order: int) -> None:
    penalized = SamplingSettings(max_new_tokens=25, repetition_penalty=1.3, presence_penalty=0.5)
    settings = [GREEDY, SAMPLED, penalized, GREEDY, SAMPLED, SamplingSettings(max_new_tokens=3)][::order]
    alone = [engine.generate([prompt], each)[0] for prompt, each in zip(PROMPTS, settings, strict=True)]
    found = staggered(engine, settings)
    for row, wanted in enumerate(alone):
        piece = found[str(row)]
        assert (piece.ids, piece.finish) == (wanted.ids, wanted.finish)
        assert piece.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
    assert engine.statistics().generated_tokens == sum(len(each.ids) for each in alone)
    assert engine.statistics().prompt_tokens == sum(map(len, PROMPTS))


@pytest.mark.parametrize("name", ["GPT2", "Mistral", "Gemma2", "Bloom", "Mamba"])
def test_other_architectures(name: str) -> None:
    """Windows, positions without rotation and none at all; a state, whose batches are not joined."""
    engine = other_decoder(name)
    alone = [engine.generate([each], GREEDY)[0].ids for each in PROMPTS]
    found = staggered(engine, [GREEDY] * len(PROMPTS))
    assert [found[str(row)].ids for row in range(len(PROMPTS))] == alone


def test_an_aborted_row_frees_its_slot_in_a_step(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transformers_engine.MOST_ROWS, "cpu", 2)
    for row in range(3):
        engine.add(str(row), PROMPTS[row], SamplingSettings(max_new_tokens=40, ignore_stop=True))
    engine.step()
    assert (engine.statistics().running, engine.statistics().waiting) == (2, 1)
    engine.abort("0")
    pieces = engine.step()
    assert {each.request_id for each in pieces} == {"1", "2"}
    assert (engine.statistics().running, engine.statistics().waiting) == (2, 0)
    engine.abort("0")
    engine.abort("1")
    engine.abort("2")
    assert not engine.has_work()


def test_a_drawn_response_that_ends_early_leaves_the_others(engine: TransformersEngine) -> None:
    """Its row stays in the batch for some steps, for which it has no random numbers."""
    most = [3, *[20] * 7]
    for number, tokens in enumerate(most):
        settings = SamplingSettings(max_new_tokens=tokens, temperature=1.0, ignore_stop=True, seed=number)
        engine.add(str(number), [5, 6, 7 + number], settings)
    assert [len(piece.ids) for _, piece in sorted(run(engine).items())] == most


def test_most_probable_tokens(engine: TransformersEngine) -> None:
    engine.add("0", PROMPTS[1], SamplingSettings(max_new_tokens=5, top_logprobs=3))
    piece = run(engine)["0"]
    assert [each[0][0] for each in piece.top] == piece.ids
    assert [each[0][1] for each in piece.top] == pytest.approx(piece.logprobs, abs=1e-5)
    assert all(len(each) == 3 and each[0][1] >= each[1][1] >= each[2][1] for each in piece.top)


def test_frequency_lowers_the_logits_of_the_response(engine: TransformersEngine) -> None:
    plain = engine.generate([PROMPTS[0]], SamplingSettings(max_new_tokens=60, ignore_stop=True))[0]
    varied = SamplingSettings(max_new_tokens=60, ignore_stop=True, frequency_penalty=2.0)
    assert len(set(engine.generate([PROMPTS[0]], varied)[0].ids)) > len(set(plain.ids))


def test_what_this_engine_does_not_have(engine: TransformersEngine) -> None:
    with pytest.raises(DataError, match="no adapter polite is loaded; loaded: none"):
        engine.add("0", PROMPTS[0], SamplingSettings(adapter="polite"))


def streamed(engine: Any, use: Callable[[AsyncEngine], Any]) -> Any:
    """Run a coroutine function with an AsyncEngine that is closed afterwards."""

    async def body() -> Any:
        service = AsyncEngine(engine)
        try:
            return await asyncio.wait_for(use(service), 60)
        finally:
            await service.close()

    return asyncio.run(body())


async def collect(service: AsyncEngine, prompt: list[int], settings: SamplingSettings = GREEDY) -> list[int]:
    return [token async for piece in service.stream(prompt, settings) for token in piece.ids]


async def idle(service: AsyncEngine) -> None:
    """Wait until the engine has no requests."""
    while service.engine.has_work():
        await asyncio.sleep(0.001)


def test_streams_give_what_generate_gives(engine: TransformersEngine, reference: TransformersEngine) -> None:
    async def use(service: AsyncEngine) -> Any:
        return await asyncio.gather(*(collect(service, prompt, SAMPLED) for prompt in PROMPTS * 2))

    wanted = [reference.generate([prompt], SAMPLED)[0].ids for prompt in PROMPTS]
    assert streamed(engine, use) == wanted * 2, "a seed gives the same answer at any time"


def test_a_slow_reader_holds_back_only_itself(engine: TransformersEngine, reference: TransformersEngine) -> None:
    async def use(service: AsyncEngine) -> Any:
        slow = service.stream(PROMPTS[3], GREEDY)
        first = await anext(slow)
        others = await asyncio.gather(*(collect(service, prompt) for prompt in PROMPTS))
        await idle(service)
        return first, others, [piece async for piece in slow]

    first, others, rest = streamed(engine, use)
    assert others == [reference.generate([prompt], GREEDY)[0].ids for prompt in PROMPTS]
    assert len(rest) == 1, "what was not read is one piece"
    assert first.ids + rest[0].ids == others[3]


@pytest.mark.parametrize("way", ["cancel", "close", "drop", "expire"])
def test_a_stream_that_nobody_reads_any_more_is_aborted(engine: TransformersEngine, way: str) -> None:
    endless = SamplingSettings(max_new_tokens=200, ignore_stop=True)

    async def use(service: AsyncEngine) -> int:
        stream = service.stream(PROMPTS[0], endless)
        await anext(stream)
        if way == "cancel":
            task = asyncio.ensure_future(_exhaust(stream))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif way == "close":
            await stream.aclose()
        elif way == "expire":
            asyncio.get_running_loop().call_later(0.01, stream.expire)
            with pytest.raises(TimeoutError):
                await _exhaust(stream)
        else:
            del stream
            gc.collect()
        await idle(service)
        return service.statistics().generated_tokens

    assert streamed(engine, use) < 200


async def _exhaust(stream: Any) -> None:
    async for _ in stream:
        pass


def test_a_fault_reaches_every_stream(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(service: AsyncEngine) -> Any:
        own, begun = engine.step, set()

        def step() -> Any:
            """Fail as soon as every response has begun, before any has ended."""
            if len(begun) == len(PROMPTS):
                raise IndexError
            pieces = own()
            begun.update(each.request_id for each in pieces if each.ids)
            return pieces

        monkeypatch.setattr(engine, "step", step)
        streams = [service.stream(prompt, GREEDY) for prompt in PROMPTS]
        ended = await asyncio.gather(*(_exhaust(each) for each in streams), return_exceptions=True)
        with pytest.raises(EngineFault):
            service.check_health()
        with pytest.raises(EngineFault):
            service.stream(PROMPTS[0], GREEDY)
        return ended

    assert [type(each) for each in streamed(engine, use)] == [EngineFault] * len(PROMPTS)


def test_a_request_that_fails_leaves_the_others(engine: TransformersEngine, reference: TransformersEngine) -> None:
    async def use(service: AsyncEngine) -> Any:
        bad = service.stream([999], GREEDY)
        good = await collect(service, PROMPTS[1])
        with pytest.raises(DataError, match="outside of the model's vocabulary"):
            await anext(bad)
        with pytest.raises(DataError, match=r"/nowhere has no adapter_config.json"):
            await service.load_adapter("polite", Path("/nowhere"))
        service.check_health()
        return good

    assert streamed(engine, use) == reference.generate([PROMPTS[1]], GREEDY)[0].ids


def test_a_closed_engine_ends_its_streams(engine: TransformersEngine) -> None:
    async def use() -> None:
        service = AsyncEngine(engine)
        stream = service.stream(PROMPTS[0], SamplingSettings(max_new_tokens=200, ignore_stop=True))
        await anext(stream)
        await service.close()
        with pytest.raises(EngineFault, match="closed"):
            await _exhaust(stream)
        with pytest.raises(EngineFault, match="closed"):
            service.stream(PROMPTS[0], GREEDY)

    asyncio.run(asyncio.wait_for(use(), 60))


def test_a_finished_piece_names_its_reason(engine: TransformersEngine) -> None:
    plain = engine.generate([PROMPTS[0]], GREEDY)[0]
    engine.add("0", PROMPTS[0], SamplingSettings(max_new_tokens=40, stop=frozenset({plain.ids[5]})))
    piece = run(engine)["0"]
    assert piece.ids == plain.ids[: plain.ids.index(plain.ids[5])]
    assert piece.finish is Finish.STOP
