"""The step evaluates a tiny model that writes and its base: files, metrics, leaks, a judge, and the gate on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, ParamsError, Unavailable
from raypath.components.core.artifacts import Model
from raypath.components.core.columns import Column
from raypath.components.core.conversations import Conversation, Preference
from raypath.components.core.labels import LabelKind
from raypath.components.evaluate_generation import evaluate_generation
from raypath.components.evaluation.generation.params import EvaluateGenerationParams
from raypath.components.evaluation.generation.stored import load_counts, save_counts
from raypath.components.inference.batch.rivals import Side, gather
from raypath.components.inference.generation.evaluation.conversations import choose_rows, message_text, read_prompt_rows
from raypath.components.models.base_models import weights_digest
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.reports.generation.contents import GenerationReport
from tests.components.evaluation.generation.test_judge import said_by, serve
from tests.components.inference.generation.test_harness import CHOICE
from tests.local_http import answering
from tests.tiny_chat import chat_folder, chat_tokenizer

Make = Callable[..., Context]
SHORT = EvaluateGenerationParams(max_new_tokens=8, resamples=50, plots=False)


def conversations(folder: Path, count: int, start: int = 0, answer: str = "No damage to {n}.") -> Dataset:
    """A Dataset of conversations; one row in five has two turns, and one in ten no prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = []
    for n in range(start, start + count):
        prompt: list[Any] = [{"role": "user", "content": f"Bird at {n}?"}]
        if n % 5 == 0:
            prompt = [*prompt, {"role": "assistant", "content": "Where?"}, {"role": "user", "content": "At the gate."}]
        if n % 10 == 3:
            prompt = []
        texts.append(Conversation((*prompt, {"role": "assistant", "content": answer.format(n=n)})).dumps())
    pq.write_table(pa.table({"text": texts}), folder / "00000.parquet")
    return Dataset(
        uri=str(folder),
        digest=f"{start:064d}",
        rows=count,
        label_kind=LabelKind.NONE,
        columns=(Column(name="messages", kind="messages"),),
        source="made up",
    )


def empty(data: Dataset, folder: Path) -> Dataset:
    """The same columns without rows."""
    folder.mkdir()
    pq.write_table(pq.read_table(f"{data.uri}/00000.parquet").slice(0, 0), folder / "00000.parquet")
    return data.model_copy(update={"uri": str(folder), "rows": 0})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return conversations(tmp_path_factory.mktemp("test"), 30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    base = chat_folder(tmp_path_factory.mktemp("base"), seed=1)
    folder = chat_folder(tmp_path_factory.mktemp("model"), seed=2)
    write_metadata(folder, ModelMetadata(task="text_generation", labels=(), max_length=128, label_kind=LabelKind.NONE))
    return Model(uri=str(folder), digest="m" * 64, task="text_generation", base=str(base), max_length=128)


def test_files_and_metrics(make_context: Make, model: Model, data: Dataset) -> None:
    ctx = make_context("evaluate_generation")
    report = evaluate_generation.fn(ctx, model, data, SHORT.override({"plots": True}))
    found = report.metrics
    rows = pq.read_table(ctx.out / "predictions.parquet").to_pydict()
    assert len(rows["row"]) == 27, "three rows have no prompt"
    assert rows["reference"][0] == "No damage to 0."
    assert rows["predicted"] != rows["before"]
    for name in ("exact_match", "token_f1", "chrf", "loss", "perplexity", "accuracy", "length", "stopped"):
        assert {name, f"{name}_low", f"{name}_high", f"before/{name}"} <= set(found), name
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    assert json.loads((ctx.out / "metrics.json").read_text())["metrics"] == found
    page = (ctx.out / "report.html").read_text()
    assert "Bird at 0?" in page
    assert "No damage to 0." in page
    assert (ctx.out / "plots" / "lengths.png").is_file()
    contents = GenerationReport.model_validate_json((ctx.out / "report.json").read_text())
    assert contents.main == "exact_match"
    assert "Bird" not in (ctx.scratch / ".report" / "report.html").read_text(), "texts stay in the step's own files"
    stored = load_counts(ctx.out)
    assert stored is not None
    assert stored.rows.tolist() == rows["row"]
    assert b"damage" not in (ctx.out / "test_answers.npz").read_bytes()


def test_the_loss_is_that_of_a_plain_forward_pass(make_context: Make, model: Model, data: Dataset) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from raypath.components.models.chat_template import ChatTemplate

    report = evaluate_generation.fn(make_context("e"), model, data, SHORT.override({"before": False}))
    opened, template = AutoModelForCausalLM.from_pretrained(model.uri), ChatTemplate.load(model.uri)
    lost = tokens = 0.0
    for n, text in enumerate(pq.read_table(f"{data.uri}/00000.parquet")["text"].to_pylist()):
        if n % 10 == 3:
            continue
        ids, mask = template.encode(Conversation.loads(text))
        with torch.no_grad():
            scores = torch.log_softmax(opened(torch.tensor([ids])).logits[0].double(), dim=-1)
        learned = [place for place in range(1, len(ids)) if mask[place]]
        lost -= sum(float(scores[place - 1, ids[place]]) for place in learned)
        tokens += len(learned)
    assert report.metrics["loss"] == pytest.approx(lost / tokens, rel=1e-4)
    assert not [name for name in report.metrics if name.startswith("before/")]


def test_some_rows_are_answered_and_it_is_said(
    make_context: Make, model: Model, data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    ctx = make_context("evaluate_generation")
    with caplog.at_level("INFO", logger="raypath"):
        evaluate_generation.fn(ctx, model, data, SHORT.override({"rows": 5, "before": False}))
    assert pq.read_table(ctx.out / "predictions.parquet")["row"].to_pylist() == [0, 7, 14, 21, 29]
    assert "5 of 30 test rows are evaluated; -s evaluate.rows=0 takes all" in caplog.text
    assert "only 5 test rows are evaluated" in caplog.text


def test_an_interrupted_evaluation_does_not_generate_again(
    make_context: Make, model: Model, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = make_context("evaluate_generation")
    first = evaluate_generation.fn(ctx, model, data, SHORT)
    monkeypatch.setattr("raypath.components.models.chat_template.ChatTemplate.load", None)
    assert evaluate_generation.fn(ctx, model, data, SHORT).metrics == first.metrics


def test_leaks_and_canaries(make_context: Make, model: Model, data: Dataset, tmp_path: Path) -> None:
    train = conversations(tmp_path / "train", 20, 100, "The code of {n} is zebra.")
    params = SHORT.override({"canaries": ["code of 107 is zebra"]})
    ctx = make_context("evaluate_generation")
    found = evaluate_generation.fn(ctx, model, data, params, train).metrics
    assert found["leaks"] == found["canaries"] == found["canaries_reproduced"] == 0
    contents = GenerationReport.model_validate_json((ctx.out / "report.json").read_text())
    assert contents.train_rows == 20
    assert contents.notes == ["0% of 1 training prompts with a planted canary are answered with it"]
    assert contents.rows == 27, "the planted prompt is no test row"


def test_a_schema_and_named_metrics(make_context: Make, model: Model, data: Dataset, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    params = SHORT.override({"json_schema": str(schema), "metrics": ["rouge_l", "schema_valid"]})
    report = evaluate_generation.fn(make_context("e"), model, data, params)
    assert report.metrics["schema_valid"] == 0
    assert "chrf" not in report.metrics
    assert "rouge_l" in report.metrics
    with pytest.raises(ParamsError, match="rouge_1"):
        evaluate_generation.fn(make_context("e"), model, data, SHORT.override({"metrics": ["rouge_1"]}))


def test_a_judge_compares_with_the_base(make_context: Make, model: Model, data: Dataset) -> None:
    with answering(serve(lambda _: said_by("A"))) as url:
        params = SHORT.override({"judge": f"{url}/v1", "judge_rows": 6})
        ctx = make_context("evaluate_generation")
        found = evaluate_generation.fn(ctx, model, data, params).metrics
    assert found["judge"] == 0.5, "always the first is a tie in both orders"
    assert found["judge_agreement"] == 0.0
    assert found["judge_tokens"] == 12 * 10
    assert "before/judge" not in found
    assert "the judge gives the same verdict in both orders for 0% of the rows" in (ctx.out / "report.html").read_text()
    with pytest.raises(Unavailable, match="does not respond"):
        evaluate_generation.fn(make_context("e"), model, data, params)
    with pytest.raises(ParamsError, match="judge compares with the base"):
        evaluate_generation.fn(make_context("e"), model, data, params.override({"before": False}))


def test_metrics_are_kept_without_a_page(
    make_context: Make, model: Model, data: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("private")

    monkeypatch.setattr("raypath.components.reports.generation.render.render", fail)
    assert "exact_match" in evaluate_generation.fn(make_context("e"), model, data, SHORT).metrics
    assert "the evaluation report was not written (KeyError); the metrics are not affected" in caplog.text


@pytest.mark.parametrize("url", ["https://user:pass@host/v1", "https://host/v1?token=abc"])
def test_a_key_in_the_url_of_the_judge_would_be_recorded(url: str) -> None:
    with pytest.raises(ParamsError, match="has a password or a token, which would be recorded"):
        SHORT.override({"judge": url})


def test_a_base_that_is_gone_is_left_out(
    make_context: Make, model: Model, data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    lost = model.model_copy(update={"base": "/nowhere"})
    assert "exact_match" in evaluate_generation.fn(make_context("e"), lost, data, SHORT).metrics
    assert "the base is not evaluated" in caplog.text


def test_texts_without_prompts_are_scored_alone(make_context: Make, model: Model, tmp_path: Path) -> None:
    texts = conversations(tmp_path / "texts", 1, 3)
    ctx = make_context("e")
    report = evaluate_generation.fn(ctx, model, texts, SHORT.override({"plots": True}))
    names = {name for name in report.metrics if not name.endswith(("_low", "_high"))}
    assert names == {f"{side}{name}" for side in ("", "before/") for name in ("loss", "perplexity", "accuracy")}
    contents = GenerationReport.model_validate_json((ctx.out / "report.json").read_text())
    assert (contents.main, contents.samples, contents.lengths.answer) == ("loss", [], [])
    with pytest.raises(ParamsError, match="setting metrics needs responses, and the test rows are texts"):
        evaluate_generation.fn(make_context("e"), model, texts, SHORT.override({"metrics": ["rouge_l"]}))


def test_an_unknown_metric_is_told_before_the_training() -> None:
    with pytest.raises(ParamsError, match="got rogue_l, which is not a metric of generated text; did you mean rouge_l"):
        EvaluateGenerationParams(metrics=("rogue_l",))


def test_rows_without_responses(make_context: Make, model: Model, tmp_path: Path) -> None:
    texts = conversations(tmp_path / "texts", 1, 3)
    with pytest.raises(DataError, match="none of the 0 test rows has a response"):
        evaluate_generation.fn(make_context("e"), model, empty(texts, tmp_path / "empty"), SHORT)
    other = texts.model_copy(update={"columns": ()})
    with pytest.raises(DataError, match="no column of kind messages"):
        evaluate_generation.fn(make_context("e"), model, other, SHORT)


def test_chosen_answers_and_good_ones_are_references(tmp_path: Path) -> None:
    pair = Preference(
        ({"role": "user", "content": "Tea?"},),
        ({"role": "assistant", "content": "Yes."},),
        ({"role": "assistant", "content": "No."},),
    )
    pq.write_table(pa.table({"text": [pair.dumps()] * 3, "label": ["true", "false", "true"]}), tmp_path / "0.parquet")
    column = Column(name="pairs", kind="preference")
    data = Dataset(uri=str(tmp_path), rows=3, label_kind=LabelKind.NONE, columns=(column,))
    prompts = read_prompt_rows(data, choose_rows(3, 0))
    assert [(each.row, each.turns, each.reference) for each in prompts] == [
        (n, [("user", "Tea?")], "Yes.") for n in range(3)
    ]
    labelled = data.model_copy(update={"label_kind": LabelKind.BOOL})
    assert [each.row for each in read_prompt_rows(labelled, choose_rows(3, 0))] == [0, 2], "bad ones are no references"


def test_calls_of_tools_are_part_of_an_answer() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"where": "好"}'}}
    message = {"role": "assistant", "content": "I look.", "tool_calls": [call, {"function": {"name": "go"}}]}
    arguments = r'"{\"where\": \"好\"}"'
    assert message_text(message) == f'I look.\n{{"name": "find", "arguments": {arguments}}}\n{{"name": "go"}}'
    assert message_text({"content": None}) == ""


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_adapters_are_evaluated_on_their_base(make_context: Make, data: Dataset, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base, folder = chat_folder(tmp_path / "base", seed=1), tmp_path / "adapter"
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    tuned.save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    facts = {"task": "text_generation", "labels": (), "max_length": 128, "label_kind": LabelKind.NONE}
    write_metadata(folder, ModelMetadata(**facts, base=str(base), base_digest=weights_digest(base)))
    model = Model(uri=str(folder), digest="a" * 64, task="text_generation", base=str(base), max_length=128)
    found = evaluate_generation.fn(make_context("e"), model, data, SHORT.override({"rows": 6})).metrics
    assert found["before/loss"] != pytest.approx(found["loss"], rel=1e-3)
    merged = tmp_path / "merged"
    tuned.merge_and_unload().save_pretrained(merged)
    chat_tokenizer().save_pretrained(merged)
    write_metadata(merged, ModelMetadata(**facts))
    whole = model.model_copy(update={"uri": str(merged)})
    again = evaluate_generation.fn(make_context("e"), whole, data, SHORT.override({"rows": 6})).metrics
    assert again == pytest.approx(found, rel=1e-4)


def test_the_gate_compares_answers_by_row(make_context: Make, model: Model, data: Dataset, tmp_path: Path) -> None:
    ctx = make_context("evaluate_generation")
    report = evaluate_generation.fn(ctx, model, data, SHORT.override({"before": False}))
    other = chat_folder(tmp_path / "champion", seed=5)
    write_metadata(other, ModelMetadata(task="text_generation", labels=(), max_length=128, label_kind=LabelKind.NONE))
    champion = make_context("evaluate_generation")
    elsewhere = model.model_copy(update={"uri": str(other)})
    evaluate_generation.fn(champion, elsewhere, data, SHORT.override({"before": False}))
    for file in champion.out.glob("*.npz"):
        file.rename(other / file.name)
    for metric in ("chrf", "loss", "refusals"):
        new = Side(Path(model.uri), ctx.out)
        stored = gather(new, Side(other, other), data, metric)
        run = gather(new, Side(other), data, metric)
        assert stored.note == ""
        assert run.note == "evaluated on this test split"
        assert stored.comparison == run.comparison
        assert stored.comparison.new == pytest.approx(report.metrics[metric])
        assert stored.comparison.rows == 27
        assert len(stored.won) == min(stored.comparison.won, 20)
    found = load_counts(other)
    assert found is not None
    save_counts(other, found.rows, {"loss": found.counts["loss"]}, found.settings)
    assert gather(new, Side(other, other), data, "chrf").note == "evaluated on this test split", "it had no chrf"
    same = gather(Side(Path(model.uri), ctx.out), Side(Path(model.uri), ctx.out), data, "chrf").comparison
    assert (same.gain, same.chance) == (0.0, 0.5)
    with pytest.raises(DataError, match="no bleu_5 by row"):
        gather(Side(Path(model.uri), ctx.out), Side(other), data, "bleu_5")


@pytest.mark.filterwarnings("ignore")
def test_tasks_of_lm_evaluation_harness(
    make_context: Make, model: Model, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text('{"question": "The sky is", "answer": 1}\n' * 4)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "colours.yaml").write_text(CHOICE.format(data=tmp_path / "rows.jsonl"))
    ctx = make_context("evaluate_generation")
    params = SHORT.override({"rows": 2, "harness": "colours", "harness_tasks": str(tmp_path / "tasks")})
    found = evaluate_generation.fn(ctx, model, data, params).metrics
    assert found["harness/colours/acc"] in (0.0, 1.0)
    contents = GenerationReport.model_validate_json((ctx.out / "report.json").read_text())
    [result] = contents.harness
    assert (result.task, result.metric, result.value) == ("colours", "acc", found["harness/colours/acc"])
    assert result.before == found["before/harness/colours/acc"]
    assert "lm-evaluation-harness" in (ctx.out / "report.html").read_text()
