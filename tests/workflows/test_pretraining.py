"""Pre-training on texts without labels, then fine-tuning from it: the whole workflow on a tiny model."""

import csv
import json
import random
import re
from pathlib import Path

import pytest

from raypath.components import Context, Dataset, Model, ParamsError
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.deploy.execution.run_history import Run
from raypath.workflows.pretraining import Pretraining, pretraining
from tests.workflows.conftest import WORDS, Project, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several")]


@pytest.fixture(scope="module")
def project(folder: Path, base_model: Path) -> Project:
    write_rows(folder / "data.csv", 120)
    rng, words = random.Random(1), [word for topic in WORDS.values() for word in topic]
    with open(folder / "data.csv", encoding="utf-8", newline="") as file:
        # A pool holds the labelled texts too, where these were drawn from it.
        lines = [{"note": row["body"]} for row in csv.DictReader(file)]
    lines += [{"note": " ".join(rng.choices(words, k=12))} for _ in range(150)]
    (folder / "pool.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    settings = {
        "read.uri": "data.csv",
        "read.text": "body",
        "read.label": "topic",
        "finetune.base": str(base_model),
        "finetune.frozen_layers": "0",
        "finetune.lr": "1e-3",
        "finetune.threads": "1",
        # tests/deploy/cli/test_project.py runs what is chosen for few rows, the other workflows measure precisions.
        "finetune.method": "full",
        "finetune.epochs": "4",
        "pretrain.epochs": "2",
        "pretrain.threads": "1",
        "pretrain.lr": "1e-3",
        "pretrain.batch_tokens": "256",
        "registry.name": "topics",
        "registry.precision": "fp32",
    }
    return Project(folder, settings)


def _run(project: Project, **more: str) -> Run:
    assert "done in" in project.raypath(*project.line(workflow="pretraining", **more))
    return project.last("pretraining")[0]


def test_it_learns_from_texts_without_labels_and_serves_what_was_fine_tuned(project: Project) -> None:
    run = _run(project, unlabelled__uri="pool.jsonl", unlabelled__text="note")
    names = [step.name for step in run.steps]
    data = ["read", "split", "configure", "inspect", "preprocess"]
    assert names[:9] == [*data, "read-2", "split-2", "preprocess-2", "pretrain"]
    start, model, endpoint = (run.step(name).artifact for name in ("pretrain", "finetune", "serve"))
    assert start is not None
    assert model is not None
    assert endpoint is not None
    assert start["metrics"]["perplexity"] > 1
    assert model["base"] == f"{project.settings['finetune.base']}, then language_model"
    assert run.step("finetune").key_inputs["input start"] == start["digest"]
    head, leaks = run.step("pretrain").warnings
    assert "has no language model's head" in head
    assert re.fullmatch(r"removed (1[2-9]|2[0-4]) texts that are .*", leaks), "of 12 and 12 that are measured on"
    answer = project.ask(f"{endpoint['url']}/predict", {"text": ["lovely, great, 很好 😊", "stale 💔"]})
    assert {p["label"] for p in answer["predictions"]} <= set(WORDS)


def test_without_texts_of_their_own_those_of_train_are_taken() -> None:
    [drawn] = [node for node in pretraining.trace().nodes if node.name == "pretrain"]
    assert [str(ref) for ref in drawn.inputs] == [
        "preprocess.train",
        "preprocess.valid",
        "preprocess",
        "configure.inputs",
    ]
    changes = {"unlabelled.uri": "pool.jsonl", "unlabelled.text": "note"}
    more = pretraining.trace(Pretraining().override(changes))
    [drawn] = [node for node in more.nodes if node.name == "pretrain"]
    assert [str(ref) for ref in drawn.inputs] == [
        "preprocess-2.train",
        "preprocess-2.valid",
        "preprocess",
        "configure.inputs",
    ]


def test_a_language_model_itself_is_not_evaluated(project: Project, tmp_path: Path) -> None:
    [run] = project.last("pretraining")
    parts = run.step("preprocess").artifact
    assert parts is not None
    model = Model.model_validate(run.step("pretrain").artifact, strict=False)
    ctx = Context(step="evaluate", out=tmp_path, scratch=tmp_path, workers=1)
    with pytest.raises(ParamsError, match="a language model cannot be evaluated"):
        evaluate.fn(ctx, model, Dataset.model_validate(parts["test"], strict=False), EvaluateParams())
