"""Rows of one batch take different adapters, and get the answers of the merged models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.async_engine import AsyncEngine
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.models.adapters import CONFIG
from tests.components.inference.generation.test_streaming import PROMPTS, run
from tests.components.inference.generation.test_transformers_engine import other_decoder
from tests.tiny_adapters import adapter_folder, merged
from tests.tiny_chat import chat_model, chat_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "a": {},
    "b": {"r": 7, "lora_alpha": 3, "use_rslora": True},
    "c": {"targets": ("q_proj", "down_proj"), "r": 2},
}
NAMES = ["a", "", "b", "c", "a", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home, base = tmp_path_factory.mktemp("adapters"), chat_model()
    return {name: adapter_folder(home / name, base, seed, **more) for seed, (name, more) in enumerate(SHAPES.items())}


@pytest.fixture(scope="module")
def answers(folders: dict[str, Path]) -> dict[str, Any]:
    """Answers of each merged model to all prompts, one at a time."""
    models = {"": chat_model(), **{name: merged(chat_model(), folder) for name, folder in folders.items()}}
    return {name: [_alone(model, prompt) for prompt in PROMPTS] for name, model in models.items()}


@pytest.fixture
def engine(folders: dict[str, Path]) -> TransformersEngine:
    made = TransformersEngine(chat_model(), chat_tokenizer())
    for name, folder in folders.items():
        made.load_adapter(name, folder)
    return made


def _alone(model: Any, prompt: list[int]) -> Any:
    return TransformersEngine(model, chat_tokenizer()).generate([prompt], greedy())[0]


def greedy(name: str = "") -> SamplingSettings:
    return SamplingSettings(max_new_tokens=24, adapter=name)


@pytest.mark.parametrize("every", [0, 2])
def test_rows_have_the_answers_of_the_merged_models(
    engine: TransformersEngine, answers: dict[str, Any], every: int
) -> None:
    """All at once, and one more every second step."""

    def add(step: int) -> None:
        for row, (prompt, name) in enumerate(zip(PROMPTS, NAMES, strict=True)):
            if step == row * every:
                engine.add(str(row), prompt, greedy(name))

    found = run(engine, add)
    for row, name in enumerate(NAMES):
        wanted, piece = answers[name][row], found[str(row)]
        assert (piece.ids, piece.finish) == (wanted.ids, wanted.finish), name
        assert piece.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
    different = {tuple(answers[name][0].ids) for name in ("", *SHAPES)}
    assert len(different) == 4, "every adapter answers the same prompt differently"


def test_a_prompt_that_was_answered_by_one_adapter_is_computed_anew_for_another(
    engine: TransformersEngine, answers: dict[str, Any]
) -> None:
    for name in ("a", "b", "", "a", "c"):
        engine.add("0", PROMPTS[3], greedy(name))
        assert run(engine)["0"].ids == answers[name][3].ids


def test_adapters_come_and_go_while_others_answer(
    engine: TransformersEngine, folders: dict[str, Path], answers: dict[str, Any]
) -> None:
    def change(step: int) -> None:
        if step == 0:
            engine.add("0", PROMPTS[0], greedy("a"))
            engine.add("1", PROMPTS[1], greedy("b"))
            with pytest.raises(DataError, match="adapter b is used by 1 requests in flight"):
                engine.drop_adapter("b")
        if step == 3:
            engine.abort("1")
            engine.drop_adapter("b")
            with pytest.raises(DataError, match="no adapter b is loaded; loaded: a, c"):
                engine.add("2", PROMPTS[2], greedy("b"))
        if step == 5:
            engine.load_adapter("b again", folders["b"])
            engine.add("2", PROMPTS[2], greedy("b again"))

    found = run(engine, change)
    assert found["0"].ids == answers["a"][0].ids
    assert found["2"].ids == answers["b"][2].ids
    for name in ("a", "b again", "c"):
        engine.drop_adapter(name)
    assert not any(layer._forward_hooks for layer in engine.model.modules())
    assert engine.generate(PROMPTS[:1], greedy())[0].ids == answers[""][0].ids


@pytest.mark.parametrize("kind", ["GPT2", "OPT", "Gemma2", "Bloom"])
def test_other_architectures(kind: str, tmp_path: Path) -> None:
    base, tokenizer = other_decoder(kind).model, chat_tokenizer()
    folders = [adapter_folder(tmp_path / str(seed), base, seed) for seed in range(2)]
    wanted = [TransformersEngine(model, tokenizer) for model in (base, *(merged(base, each) for each in folders))]
    engine = TransformersEngine(base, tokenizer)
    for seed, folder in enumerate(folders):
        engine.load_adapter(str(seed), folder)
    names = ["0", "1", "", "1", "0", "1"]
    for row, (prompt, name) in enumerate(zip(PROMPTS, names, strict=True)):
        engine.add(str(row), prompt, greedy(name))
    found = run(engine)
    for row, name in enumerate(names):
        alone = wanted[int(name) + 1 if name else 0].generate([PROMPTS[row]], greedy())[0]
        assert found[str(row)].ids == alone.ids, (row, name)


def test_the_base_is_in_memory_once(folders: dict[str, Path], answers: dict[str, Any]) -> None:
    engine = TransformersEngine(chat_model(), chat_tokenizer())
    before = {name: weight.data_ptr() for name, weight in engine.model.named_parameters()}
    for n in range(8):
        engine.load_adapter(str(n), folders["a"])
    found = engine.generate(PROMPTS, greedy("3"))
    assert [each.ids for each in found] == [each.ids for each in answers["a"]]
    assert {name: weight.data_ptr() for name, weight in engine.model.named_parameters()} == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_dora": True}, r"is not applied to rows: it has use_dora=True; register it as a model of its own"),
        ({"rank_pattern": {"q_proj": 2}}, "it has rank_pattern="),
    ],
)
def test_adapters_that_are_served_merged(
    folders: dict[str, Path], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    for path in folders["a"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | changes))
    with pytest.raises(DataError, match=reason):
        TransformersEngine(chat_model(), chat_tokenizer()).load_adapter("x", tmp_path)


def test_adapters_of_other_layers(folders: dict[str, Path]) -> None:
    for other in (chat_model(num_hidden_layers=1), chat_model(hidden_size=16)):
        engine = TransformersEngine(other, chat_tokenizer())
        with pytest.raises(DataError, match=r"and the base has none|other shapes than the base; take its own base"):
            engine.load_adapter("a", folders["a"])
        with pytest.raises(DataError, match="no adapter a is loaded; loaded: none"):
            engine.add("0", PROMPTS[0], greedy("a"))


def test_adapters_of_a_running_service(folders: dict[str, Path], answers: dict[str, Any]) -> None:
    async def use() -> None:
        service = AsyncEngine(TransformersEngine(chat_model(), chat_tokenizer()))
        await service.load_adapter("a", folders["a"])
        with pytest.raises(DataError, match="adapter a is loaded already"):
            await service.load_adapter("a", folders["a"])
        ids = [token async for piece in service.stream(PROMPTS[1], greedy("a")) for token in piece.ids]
        assert ids == answers["a"][1].ids
        await service.drop_adapter("a")
        with pytest.raises(DataError, match="no adapter a is loaded"):
            await anext(service.stream(PROMPTS[1], greedy("a")))
        await service.close()

    asyncio.run(asyncio.wait_for(use(), 60))
