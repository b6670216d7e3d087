"""lm-evaluation-harness on a tiny model: a task of local files, scores against plain torch, and the missing extra."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from raypath.components import DataError, ParamsError
from raypath.components.inference.generation.evaluation import harness
from raypath.components.inference.generation.evaluation.findings import harness_results
from raypath.components.models.metadata import ModelMetadata, write_metadata
from tests.byte_llama import tiny_chat

CHOICE = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [red, blue]
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 8}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_chat(tmp_path_factory.mktemp("chat"))
    write_metadata(folder, ModelMetadata(task="text_generation", labels=(), max_length=64))
    return folder


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"question": f"The {n} sky is", "answer": n % 2}) + "\n" for n in range(6)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("colours", CHOICE), ("written", WRITTEN)):
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    return folder


@pytest.mark.filterwarnings("ignore")
def test_tasks_of_local_files(model: Path, tasks: Path) -> None:
    both = harness.HarnessTasks(["colours", "written"], str(tasks))
    both.check("text_generation")
    found = both.run(model, model, threads=1)
    assert 0 <= found["harness/colours/acc"] <= 1
    assert found["harness/colours/acc_stderr"] >= 0
    assert found["harness/written/exact_match"] == 0, "random weights"
    assert harness.HarnessTasks(["colours"], str(tasks), rows=2, chat=True).run(model, model, threads=1)
    (tasks.parent / "rows.jsonl").unlink()
    with pytest.raises(DataError, match=r"a task of evaluate\.harness cannot be run"):
        harness.HarnessTasks(["written"], str(tasks)).run(model, model, threads=1)
    for wrong, task, what in (
        (harness.HarnessTasks(["nothing"], str(tasks)), "text_generation", "lm_eval has no task nothing; lm_eval ls"),
        (harness.HarnessTasks(["a"], str(tasks / "none")), "text_generation", r"harness_tasks=.*none is not a folder"),
        (both, "text_to_text", "needs a causal language model"),
    ):
        with pytest.raises(ParamsError, match=what):
            wrong.check(task)


@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_torch(model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from raypath.components.inference.generation.evaluation.continuations import ContinuationScorer
    from raypath.components.inference.generation.transformers_engine import TransformersEngine

    engine = TransformersEngine.open(model, "fp32")
    scorer = ContinuationScorer(engine)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    pairs = [("The sky is ", "blue"), ("The sky", " is red today"), ("", "blue")]
    found = scorer.continuations(pairs)

    def likelihood(ids: list[int], first: int = 1) -> float:
        with torch.no_grad():
            chances = torch.log_softmax(plain(torch.tensor([ids])).logits[0], -1)
        return sum(float(chances[n - 1, ids[n]]) for n in range(first, len(ids)))

    def wanted(before: str, after: str) -> float:
        start = engine.tokenizer(before)["input_ids"] or [1]
        return likelihood([*start, *engine.tokenizer(after)["input_ids"]], len(start))

    for (score, greedy), pair in zip(found, [("The sky is", " blue"), *pairs[1:]], strict=True):
        assert math.isclose(score, wanted(*pair), rel_tol=1e-4)
        assert not greedy
    with torch.no_grad():
        nexts = {c: int(plain(**engine.tokenizer(c, return_tensors="pt")).logits[0, -1].argmax()) for c in "abcdefghij"}
    likeliest = {c: text for c, token in nexts.items() if (text := engine.tokenizer.decode(token)).isalpha()}
    assert all(greedy for _, greedy in scorer.continuations(list(likeliest.items())))
    assert likeliest
    text = "blue sky " * 60
    [all_windows] = scorer.texts([text])
    ids = [1, *engine.tokenizer(text)["input_ids"]]
    size = plain.config.max_position_embeddings - 1
    windows = [ids[start : start + size + 1] for start in range(0, len(ids) - 1, size)]
    assert len(windows) > 1
    assert math.isclose(all_windows, sum(map(likelihood, windows)), rel_tol=1e-4)
    [answer] = scorer.responses([("The sky", {"until": ["e", "zz"], "max_gen_toks": 12})])
    assert "e" not in answer


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ParamsError) as told:
        harness.HarnessTasks(["arc_easy"]).check("text_generation")
    assert str(told.value) == "evaluate.harness needs lm_eval; pip install 'raypath[lm-eval]'"


def test_results_by_name() -> None:
    values: dict[str, Any] = {
        **{"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.1, "f1,strict": 0.2, "f1_stderr,strict": "N/A"},
        **{"bad,none": float("nan"), "name": "a", "samples": 3},
    }
    new = harness.flat_metrics({"a": values})
    assert new == {"harness/a/acc": 0.5, "harness/a/acc_stderr": 0.1, "harness/a/f1.strict": 0.2}
    found = harness_results(new, {"harness/a/acc": 0.4})
    assert [(each.task, each.metric, each.value, each.error, each.before) for each in found] == [
        ("a", "acc", 0.5, 0.1, 0.4),
        ("a", "f1.strict", 0.2, None, None),
    ]
