"""From two columns to an evaluated encoder-decoder, step by step in this process; and what a user does with it."""

from __future__ import annotations

import csv
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from raypath.components import Artifact, Context, DataError, Dataset, Model, ParamsError, Report, Splits
from raypath.components.configure import configure
from raypath.components.core.context import Tracking
from raypath.components.core.conversations import Conversation
from raypath.components.evaluate_generation import evaluate_generation
from raypath.components.finetune import finetune
from raypath.components.generate import GenerateParams, generate
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.local_chat import LocalChat
from raypath.components.inference.text_to_text.opening import open_engine
from raypath.components.inference.text_to_text.seq2seq_engine import Seq2SeqEngine
from raypath.components.models.chat_template.source_target import load_template
from raypath.components.preprocess import preprocess
from raypath.components.read import ReadParams, read
from raypath.components.read_prompts import ReadPromptsParams, read_prompts
from raypath.components.serving.replica.language.loading import open_language_model
from raypath.components.split import split
from raypath.deploy.cli.language.responses import write_responses
from raypath.workflows.text_to_text import TextToText
from tests.tiny_seq2seq import KINDS, seq2seq_folder, seq2seq_tokenizer

Make = Callable[..., Context]
WORDS = {"red": "rojo", "blue": "azul", "cat": "gato", "dog": "perro", "tea": "té"}


def write_pairs(path: Path, rows: int) -> Path:
    rng = random.Random(1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["en", "es"])
        for _ in range(rows):
            words = rng.choices(sorted(WORDS), k=3)
            writer.writerow([" ".join(words), " ".join(WORDS[word] for word in words)])
    return path


def _context(folder: Path, step: str) -> Context:
    for name in ("out", "scratch"):
        (folder / step / name).mkdir(parents=True)
    tracking = Tracking(spool=str(folder / "spool"))
    return Context(
        step=step, out=folder / step / "out", scratch=folder / step / "scratch", workers=1, tracking=tracking
    )


def _settled(ctx: Context, made: Artifact) -> Any:
    """What the runner does with an artifact: absolute addresses, nested ones included."""
    own = {name: part if part.digest else _settled(ctx, part) for name, part in made.nested()}
    return made.finalized(str(ctx.out / made.uri), "d" * 64, **own)


class Trained:
    """What the steps of the workflow made."""

    def __init__(self, folder: Path, rows: int = 160, **changes: Any) -> None:
        pairs = write_pairs(folder / "pairs.csv", rows)
        base = seq2seq_folder(folder / "base", "bart")
        settings = {
            **{"read.uri": str(pairs), "read.text": "en", "read.label": "es", "finetune.base": str(base)},
            **{"finetune.lr": 1e-2, "finetune.epochs": 6, "finetune.batch_tokens": 512, "finetune.precision": "fp32"},
            **{"finetune.threads": 1, "evaluate.max_new_tokens": 24, "evaluate.resamples": 50, "evaluate.plots": False},
        }
        p = TextToText().override(settings | changes)

        def run(step: Any, *given: Any) -> Any:
            ctx = _context(folder, step.name)
            return _settled(ctx, step.fn(ctx, *given))

        self.rows: Dataset = run(read, p.read)
        self.divided: Splits = run(split, self.rows, p.split)
        chosen = run(configure, self.divided, p.finetune, p.preprocess)
        self.splits: Splits = run(preprocess, self.divided, p.preprocess, chosen.inputs)
        self.model: Model = run(finetune, self.splits.train, self.splits.valid, chosen.finetune, p.finetune)
        self.report: Report = run(evaluate_generation, self.model, self.splits.test, p.evaluate, self.splits.train)
        self.folder = Path(self.model.uri)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("pairs"))


def test_rows_are_sources_and_targets(trained: Trained) -> None:
    [column] = [each for each in trained.rows.columns if each.role == "input"]
    assert (column.name, column.kind) == ("en", "messages")
    table = pq.read_table(trained.splits.train.uri)
    tokenizer = seq2seq_tokenizer()
    for stored, ids, mask in zip(
        *(table[name].to_pylist()[:5] for name in (column.stored, "input_ids", "loss_mask")), strict=True
    ):
        source, wrote = (message["content"] for message in Conversation.loads(stored).messages)
        assert ids == [*tokenizer(source)["input_ids"], *tokenizer(wrote)["input_ids"]]
        assert mask == [n >= len(tokenizer(source)["input_ids"]) for n in range(len(ids))]
    assert trained.splits.train.max_length == 32, "the longest side has at most that many, not both together"


def test_it_is_better_than_its_base_on_held_out_rows(trained: Trained) -> None:
    found = trained.report.metrics
    assert found["loss"] < found["before/loss"] - 2
    assert found["chrf"] > found["before/chrf"] + 5
    assert {"bleu", "rouge_l", "exact_match", "chrf_low", "chrf_high"} <= set(found)
    assert json.loads((Path(trained.report.uri) / "metrics.json").read_text())["main"] == "chrf"


def test_transformers_opens_the_folder_and_writes_the_same(trained: Trained) -> None:
    import transformers

    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(trained.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.folder)
    sources = ["red cat tea", "dog", "blue blue blue blue red"]
    batch = tokenizer(sources, return_tensors="pt", padding=True)
    with torch.no_grad():
        wanted = tokenizer.batch_decode(model.generate(**batch, max_new_tokens=20), skip_special_tokens=True)
    chat = LocalChat(trained.folder)
    chat._engine.model.float()
    found = chat.generate(sources, max_new_tokens=20)
    assert [each.text for each in found] == wanted
    assert chat.chat(sources[1], max_new_tokens=20) == wanted[1]
    assert found[1].prompt_tokens == 4, "three bytes and the end token"


def test_a_file_of_sources_is_answered(
    trained: Trained, make_context: Make, settle: Callable[[Context, Any], Any], tmp_path: Path
) -> None:
    table, lines = tmp_path / "new.csv", tmp_path / "new.jsonl"
    table.write_text('id,en\n7,red cat tea\n8,"dog, dog"\n', encoding="utf-8")
    lines.write_text('{"id": 7, "en": "red cat tea"}\n{"id": 8, "en": "dog, dog"}\n', encoding="utf-8")
    found = []
    for source in (table, lines):
        ctx = make_context("read_prompts")
        prompts = settle(ctx, read_prompts.fn(ctx, ReadPromptsParams(uri=str(source), text="en")))
        ctx = make_context("generate")
        generate.fn(ctx, prompts, GenerateParams(model=str(trained.folder), max_new_tokens=20))
        write_responses(ctx.out, tmp_path / f"{source.suffix[1:]}.out.jsonl")
        text = (tmp_path / f"{source.suffix[1:]}.out.jsonl").read_text("utf-8")
        found.append([json.loads(line) for line in text.splitlines()])
    assert [row["answer"] for row in found[0]] == [row["answer"] for row in found[1]]
    wanted = LocalChat(trained.folder).chat("red cat tea", max_new_tokens=20)
    assert {**found[0][0], "finish_reason": ""} == {
        "id": "7",
        "en": "red cat tea",
        "answer": wanted,
        "finish_reason": "",
    }


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "text\nred\n", "a.csv row 1 has no text en"),
        ("e.csv", "id;en\n1;red, cat\n2;\n", "e.csv row 2 has no text en"),
        ("b.csv", "en,x\nred,1\n ,2\n", "b.csv row 2 has no text en"),
        ("c.csv", "en\nred,more\n", "row 1 has another number of cells than the header"),
        ("d.jsonl", '{"es": "rojo"}\n', "row 1 has no text en"),
    ],
)
def test_a_file_without_sources_is_told(tmp_path: Path, make_context: Make, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_prompts.fn(make_context("read_prompts"), ReadPromptsParams(uri=str(tmp_path / name), text="en"))


def test_such_a_model_has_no_endpoint(trained: Trained) -> None:
    with pytest.raises(DataError, match="a model of the task text_to_text has no endpoint"):
        open_language_model(trained.folder, "pairs", 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_writes_what_transformers_writes(tmp_path: Path, kind: str) -> None:
    more = {"initializer_factor": 3.0} if kind == "t5" else {}
    folder = seq2seq_folder(tmp_path, kind, **more)
    engine, template, tokenizer = Seq2SeqEngine.open(folder, "fp32"), load_template(folder), seq2seq_tokenizer()
    sources = [f"source {'x' * (7 * n % 40)} {n}" for n in range(40)]
    prompts = [template.encode_prompt([{"role": "user", "content": each}]) for each in sources]
    seen: list[int] = []
    found = engine.generate(prompts, SamplingSettings(10), lambda done, total: seen.append(done))
    with torch.no_grad():
        made = [engine.model.generate(torch.tensor([each]), max_new_tokens=10)[0, 1:].tolist() for each in prompts]
    wanted = [ids[: ids.index(1)] if 1 in ids else ids for ids in made]
    assert [each.ids for each in found] == wanted
    assert len({tuple(each.ids) for each in found}) > 3, "sources differ in their targets"
    assert [each.text for each in found] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in wanted]
    assert seen == [32, 40]
    hot = SamplingSettings(10, temperature=5.0, seed=4)
    drawn = [[each.ids for each in engine.generate(prompts[:5], hot)] for _ in range(2)]
    assert drawn[0] == drawn[1] != [each.ids for each in found[:5]]


def test_a_source_that_the_model_cannot_take_is_told(tmp_path: Path) -> None:
    engine = open_engine(seq2seq_folder(tmp_path, "bart"))
    for prompt, told in (
        ([], "source 0 is empty"),
        ([5] * 97, "source 0 has 97 tokens, and the model takes 96"),
        ([300], "outside of the model's vocabulary of 259"),
    ):
        with pytest.raises(DataError, match=told):
            engine.generate([prompt], SamplingSettings(4))


def test_a_tokenizer_that_needs_a_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def absent(*_: Any, **__: Any) -> Any:
        raise ImportError("\nMarianTokenizer requires the SentencePiece library but it was not found")

    seq2seq_folder(tmp_path, "marian")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", absent)
    with pytest.raises(DataError, match="needs the Python package sentencepiece") as caught:
        load_template(tmp_path)
    assert caught.value.fix.startswith("pip install sentencepiece")


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")], "user, assistant, user"),
        ([("system", "s"), ("user", "a"), ("assistant", "b")], "a row has system, user"),
        ([("assistant", "b")], "a row has no message"),
    ],
)
def test_a_conversation_of_several_turns_is_told(tmp_path: Path, messages: list[tuple[str, str]], told: str) -> None:
    template = load_template(seq2seq_folder(tmp_path, "t5"))
    made = Conversation(tuple({"role": role, "content": text} for role, text in messages))
    with pytest.raises(DataError, match=told):
        template.encode(made)


def test_rows_that_are_too_long_are_counted(
    trained: Trained, make_context: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    base = seq2seq_folder(tmp_path, "bart")
    params = TextToText().preprocess.override({"max_length": 16, "tokenizer": str(base)})
    with caplog.at_level(logging.WARNING):
        made = preprocess.fn(make_context("preprocess"), trained.divided, params)
    assert 0 < made.train.rows < trained.divided.train.rows
    dropped = sum(getattr(trained.divided, name).rows - getattr(made, name).rows for name in ("train", "valid", "test"))
    assert f"{dropped} of 160" in caplog.text
    with pytest.raises(DataError, match=r"row \d+ of \w+: it has .* tokens; at most 16 are allowed"):
        preprocess.fn(make_context("preprocess"), trained.divided, params.override({"too_long": "error"}))
    with pytest.raises(ParamsError, match="learn=all is for decoders"):
        preprocess.fn(make_context("preprocess"), trained.divided, params.override({"learn": "all"}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("en,fr\nred,rouge\n", "pairs.csv has no column es; it has en, fr|pairs.csv has no column es; it has fr, en"),
        ("en,es\nred,rojo\ncat,\n", "column en or es is empty in row 2"),
        ("en,es\n  ,rojo\n", "column en or es is empty in row 1"),
    ],
)
def test_a_missing_column_or_target_is_told(tmp_path: Path, make_context: Make, text: str, told: str) -> None:
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    params = ReadParams(uri=str(tmp_path / "pairs.csv"), text="en", label="es", kind="text")
    with pytest.raises(DataError, match=told):
        read.fn(make_context("read"), params)


def test_rows_without_a_target_can_be_dropped(tmp_path: Path, make_context: Make) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"en": "a", "es": "b"}\n{"en": "c"}\n{"en": "d", "es": null}\n')
    params = ReadParams(uri=str(tmp_path / "pairs.jsonl"), text="en", label="es", kind="text", nulls="drop")
    ctx = make_context("read")
    assert read.fn(ctx, params).rows == 1


@pytest.mark.parametrize("changes", [{"inputs": ("a", "b")}, {"conversations": "auto"}, {"label": None}])
def test_a_target_text_has_one_source_column(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="kind=text takes the columns text and label"):
        ReadParams(uri="a.csv", text="en", **{"label": "es", "kind": "text", **changes})
