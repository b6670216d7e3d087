"""Engines of a language model are measured, the choice is stored with the version, and opened by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.inference.backends.precision_config import machine
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.selection import measuring, opening
from raypath.components.inference.generation.selection.choice import (
    FILE,
    EngineChoice,
    EngineMeasurement,
    read_engine_choice,
    write_engine_choice,
)
from raypath.components.inference.generation.selection.measuring import Sample, choose, measure, prepare_engine
from raypath.components.inference.generation.selection.opening import fastest, open_engine
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.inference.generation.vllm.options import missing_package
from tests.tiny_chat import chat_folder, chat_model, chat_tokenizer

PROMPTS = [list(range(3, 3 + length)) for length in (9, 30, 70)]
ROWS = [[*prompt, *range(100, 120)] for prompt in PROMPTS]
SAMPLE = Sample(PROMPTS, ROWS, [[n >= len(prompt) for n in range(len(prompt) + 20)] for prompt in PROMPTS])


def line(engine: Any, alone: float, together: float, perplexity: float = 10.0, **more: Any) -> EngineMeasurement:
    measured = {"alone": alone, "together": together, "perplexity": perplexity, "agreement": 1.0}
    return EngineMeasurement(engine=engine, **(measured | more))


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([line("openvino", 20, 200), line("openvino-int8", 30, 250)], "openvino-int8"),
        ([line("openvino", 20, 200), line("openvino-int8", 30, 250, perplexity=10.06)], "openvino"),
        ([line("openvino", 20, 200), line("openvino-int8", 30, 250, agreement=0.89)], "openvino"),
        ([line("openvino", 20, 200, left_out="no memory")], "bf16"),
        ([line("openvino", 10.4, 100)], "bf16"),
        ([line("openvino", 40, 50, perplexity=10.04)], "openvino"),
        ([line("vllm", 40, 900)], "vllm"),
    ],
)
def test_the_fastest_that_is_exact_enough(others: list[Any], wanted: str) -> None:
    assert choose([line("bf16", 10, 100), *others], 0.005) == wanted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("chat") / "model")


def test_engines_are_measured_on_the_same_tokens(folder: Path) -> None:
    import torch

    exact, compiled, int8 = measure(folder, SAMPLE, 1)[:3]
    assert [each.engine for each in (exact, compiled, int8)] == ["fp32", "openvino", "openvino-int8"]
    scores = []
    for prompt, row in zip(PROMPTS, ROWS, strict=True):
        with torch.no_grad():
            logits = torch.log_softmax(chat_model()(torch.tensor([row])).logits[0], dim=-1)
        scores += [float(logits[place - 1, row[place]]) for place in range(len(prompt), len(row))]
    assert exact.perplexity == pytest.approx(float(torch.tensor(scores).mean().neg().exp()), rel=1e-4)
    assert compiled.perplexity == pytest.approx(exact.perplexity, rel=1e-3)
    assert compiled.agreement == 1.0
    assert 0.2 < int8.agreement <= 1.0
    assert int8.perplexity != compiled.perplexity
    assert all(each.alone > 0 and each.together > each.alone for each in (exact, compiled))


def test_what_openvino_does_not_take_is_left_out(tmp_path: Path) -> None:
    made = chat_folder(tmp_path / "model", hidden_act="gelu")
    _, compiled, _ = measure(made, SAMPLE, 1)[:3]
    assert "not for the activation gelu" in compiled.left_out
    with pytest.raises(ParamsError, match="precision openvino is not available: not for the activation gelu"):
        prepare_engine(made, tmp_path / "out", None, 1, "openvino", 0.0)


def test_a_version_is_opened_as_it_was_registered(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choice = prepare_engine(folder, out, None, 1, "openvino-int8", 0.0)
    assert choice == read_engine_choice(out) == prepare_engine(folder, out, None, 1, "fp32", 0.0), "it is reused"
    opened = open_engine(out, 1, "cpu", serving=False)
    assert (opened.name, opened.precision) == ("openvino-genai", "int8")
    settings = SamplingSettings(max_new_tokens=5, ignore_stop=True)
    assert [len(each.ids) for each in opened.generate(PROMPTS, settings)] == [5, 5, 5]
    other = machine("cpu", 1).model_copy(update={"flags": ("neon",)})
    write_engine_choice(out, EngineChoice(engine="openvino", machine=other))
    assert open_engine(out, 1, "cpu").name == "transformers", "measured on another kind of machine"
    (out / FILE).write_text("{}")
    assert open_engine(out, 1, "cpu").name == "transformers"
    assert not (folder / FILE).exists()


@pytest.mark.skipif(not missing_package(), reason="vllm is installed")
def test_without_vllm_transformers_answers(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ParamsError, match=r"precision vllm is not available: vllm is not installed \(extra llm\)"):
        prepare_engine(folder, tmp_path / "out", None, 1, "vllm", 0.0)
    made = chat_folder(tmp_path / "model")
    write_engine_choice(made, EngineChoice(engine="vllm", machine=machine("cpu", 1)))
    assert open_engine(made, 1, "cpu").name == "transformers"
    assert "generation by transformers: vllm is not installed (extra llm)" in caplog.text


def test_small_models_and_few_tokens_are_not_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(chat_model(), chat_tokenizer())
    assert fastest(engine, 1, 10_000) is engine
    assert prepare_engine(folder, folder / "out", None, 1, "auto", 0.0) is None
    assert measuring._is_fixed(folder, "cpu")
    monkeypatch.setattr(opening, "PARAMETERS", 0)
    assert fastest(engine, 1, 100) is engine
    compiled = fastest(engine, 1, 10_000)
    assert compiled.name == "openvino-genai"
    settings = SamplingSettings(max_new_tokens=20)
    assert compiled.generate(PROMPTS, settings)[0].ids == engine.generate(PROMPTS, settings)[0].ids
    assert open_engine(folder, 1, "cpu", serving=False).name == "openvino-genai"
