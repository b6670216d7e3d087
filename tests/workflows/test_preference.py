"""The workflow `preference`: its graph, and its steps up to a trained model in this process, from a user's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.configure import configure
from raypath.components.core.artifacts import Artifact, Model
from raypath.components.core.context import Context
from raypath.components.fetch import FetchParams, fetch
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.models.metadata import read_metadata
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.score_reference import ScoreReferenceParams, score_reference
from raypath.components.split import SplitParams, split
from raypath.workflows.preference import Preferences, preference
from tests.byte_llama import tiny_chat

DRINKS = ("tea", "milk", "juice", "water")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat(tmp_path_factory.mktemp("base") / "tiny-chat")


def _write(path: Path, labelled: bool) -> None:
    """Offers of which one should be taken, as pairs of answers or as answers with a label."""
    rng = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        for row in range(120):
            offer = {"prompt": f"{rng.choice(DRINKS)} {rng.choice(DRINKS)} {row}"}
            answers = "yes please", "no never"
            pair = {"chosen": answers[0], "rejected": answers[1]}
            label = {"completion": answers[row % 2], "good": row % 2 == 0}
            file.write(json.dumps(offer | (label if labelled else pair)) + "\n")


def _done(ctx: Context, made: Any) -> Any:
    """An artifact as the store commits it."""
    nested = {name: _done(ctx, each) for name, each in made.nested()}
    folder = made.uri if made.uri.startswith("/") else str(ctx.out / made.uri)
    placed: Artifact = made.finalized(folder, made.digest or "1" * 64, **nested)
    return placed


@pytest.mark.parametrize("objective", ["dpo", "kto", "orpo"])
def test_a_file_of_preferences_becomes_a_model_that_prefers(
    objective: str, base: Path, make_context: Any, tmp_path: Path
) -> None:
    def run(step: Any, *given: Any) -> Any:
        ctx = make_context(step.name)
        return _done(ctx, step.fn(ctx, *given))

    _write(tmp_path / "mine.jsonl", objective == "kto")
    label = "good" if objective == "kto" else None
    params = FinetuneParams(base=str(base), task="preference", precision="fp32", threads=1).override(
        {"objective.preference": objective, "lr": 1e-2, "lora": 4}
    )
    rows = run(read, ReadParams(uri=str(tmp_path / "mine.jsonl"), label=label, conversations="auto"))
    rows = run(split, rows, SplitParams(valid=0.2, test=0.1))
    chosen = run(configure, rows, params, PreprocessParams())
    splits = run(preprocess, rows, PreprocessParams(), chosen.inputs)
    splits = run(score_reference, splits, ScoreReferenceParams.of(params), chosen.finetune)
    model: Model = run(finetune, splits.train, splits.valid, chosen.finetune, params)
    assert model.metrics["reward_accuracy"] > 0.9
    metadata = read_metadata(Path(model.uri))
    assert [column.kind for column in metadata.columns] == ["messages"]
    start = run(fetch, FetchParams(model=model.uri))
    assert start.base == str(base)
    assert (start.task, start.max_length) == ("text_generation", model.max_length)


def test_its_graph_starts_from_the_champion_unless_a_base_is_set() -> None:
    plain = preference.trace(Preferences(finetune=FinetuneParams(task="preference", base="hf://team/base")))
    assert [node.name for node in plain.nodes] == [
        *("read", "split", "configure", "inspect", "preprocess", "score_reference"),
        *("tune", "finetune", "evaluate_generation", "register"),
    ]
    further = {node.name: node for node in preference.trace(Preferences()).nodes}
    assert list(further) == ["read", "split", "fetch", *[node.name for node in plain.nodes[2:]]]
    [params] = further["fetch"].arguments
    assert isinstance(params, FetchParams)
    assert params.model == "models:/chat@champion"
