"""Pre-training goes on: perplexity falls, the folder is a base for fine-tuning, a kill changes no bit."""

import hashlib
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raypath.components.core.artifacts import Dataset, Model, Splits
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.models.metadata import ModelMetadata, read_metadata
from raypath.components.pretrain import PretrainParams, pretrain
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.token_dataset import load_token_dataset
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from tests.components.test_finetune import Notes
from tests.forks import forks
from tests.tiny import LABELS, tiny_bert

WORDS = np.array([2307, 2919, 2204, 2986, 5404, 4658])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_bert(tmp_path_factory.mktemp("base"))
    # Other white space than transformers would write: a tokenizer that is saved again is no longer the same file.
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), indent=3), "utf-8")
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Dataset, Dataset]:
    return (
        write_part(tmp_path_factory.mktemp("train"), base, 200, 0),
        write_part(tmp_path_factory.mktemp("valid"), base, 60, 1),
    )


def write_part(folder: Path, base: Path, count: int, seed: int, labelled: bool = False) -> Dataset:
    """A preprocessed Dataset of texts that go round and round through six words, each from a place of its own."""
    rng = np.random.default_rng(seed)
    lengths, places = rng.integers(6, 30, size=count), rng.integers(0, 6, size=count)
    ids = [[101, *WORDS[(np.arange(n) + at) % 6].tolist(), 102] for n, at in zip(lengths, places, strict=True)]
    columns = {"input_ids": pa.array(ids, pa.list_(pa.int32()))}
    if labelled:
        columns["target"] = pa.array(places % 2, pa.int32())
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    return Dataset(
        uri=str(folder),
        digest=f"{seed}" * 64,
        rows=count,
        labels=LABELS if labelled else (),
        label_kind="string" if labelled else "none",
        source="made up",
        tokenizer=tokenizer_digest(base),
        max_length=64,
    )


def _params(base: Path, **changes: Any) -> PretrainParams:
    plain = {"base": str(base), "epochs": 6, "lr": 3e-3, "batch_tokens": 256, "threads": 1, "head_factor": 1}
    return PretrainParams().override(plain | changes)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, base: Path, parts: tuple[Dataset, Dataset]
) -> tuple[Model, Notes, list[str]]:
    """The model, what the step noted, and what it warned of."""
    place, notes, said = tmp_path_factory.mktemp("pretrain"), Notes(), []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("raypath.pretrain").addHandler(handler)
    for name in ("out", "scratch"):
        (place / name).mkdir()
    ctx = Context(step="pretrain", out=place / "out", scratch=place / "scratch", workers=1, track=notes)
    model = pretrain.fn(ctx, *parts, _params(base))
    logging.getLogger("raypath.pretrain").removeHandler(handler)
    return model.finalized(str(ctx.out), "0" * 64), notes, said


def test_perplexity_falls(made: tuple[Model, Notes, list[str]], base: Path) -> None:
    model, notes, said = made
    course = [value for _, value in sorted(notes.points["valid/perplexity"].items())]
    assert course[0] > 100
    assert model.metrics["perplexity"] == min(course) < 10
    assert 0 < model.metrics["accuracy"] < 1
    assert (model.task, model.labels, model.label_kind) == ("language_model", (), "none")
    assert said == [f"{base} has no language model's head; a new one is trained from random weights"]


def test_the_folder_is_a_base_with_the_same_words_and_the_pooler(
    made: tuple[Model, Notes, list[str]], base: Path
) -> None:
    from transformers import AutoModel, AutoModelForMaskedLM

    folder = Path(made[0].uri)
    assert tokenizer_digest(folder) == tokenizer_digest(base)
    assert read_metadata(folder).task == "language_model"
    before, after = (AutoModel.from_pretrained(place).state_dict() for place in (base, folder))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "embeddings.word_embeddings.weight" in changed
    assert "encoder.layer.0.attention.self.query.weight" in changed
    assert not any("pooler" in name for name in changed), "it is kept for the classifier that begins from here"
    _, told = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]


def test_fine_tuning_starts_from_it(
    made: tuple[Model, Notes, list[str]], base: Path, make_context: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    for name in ("train", "valid"):
        (tmp_path / name).mkdir()
    train, valid = (write_part(tmp_path / n, base, 40, s, labelled=True) for n, s in (("train", 2), ("valid", 3)))
    ctx: Context = make_context("finetune")
    params = ResolvedParams(base="nowhere", epochs=1, lr=1e-9, frozen_layers=0, threads=1)
    model = finetune.fn(ctx, train, valid, None, params, made[0])
    assert model.base == f"{base}, then language_model"
    assert model.labels == LABELS
    started, ended = (
        AutoModelForSequenceClassification.from_pretrained(place).base_model.state_dict()
        for place in (made[0].uri, ctx.out)
    )
    assert all(torch.allclose(started[name], ended[name], atol=1e-5) for name in started)
    strange = train.model_copy(update={"tokenizer": "0" * 64})
    with pytest.raises(DataError, match=f"another tokenizer than that of {base}"):
        finetune.fn(make_context("finetune"), strange, valid, None, params, made[0])


def test_what_is_measured_later_is_not_learnt(
    base: Path,
    parts: tuple[Dataset, Dataset],
    make_context: Any,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    train, valid = parts
    (tmp_path / "test").mkdir()
    test = write_part(tmp_path / "test", base, 60, 7)
    held_out = Splits(train=train, valid=valid, test=test)
    ctx: Context = make_context("pretrain")
    pretrain.fn(ctx, train, valid, _params(base, epochs=1), held_out)
    seen, looked_at, measured = (pq.read_table(part.uri)["input_ids"].to_pylist() for part in (train, valid, test))
    kept, looked_at_still = (pq.read_table(ctx.scratch / n)["input_ids"].to_pylist() for n in ("train", "valid"))
    assert kept == [row for row in seen if row not in looked_at and row not in measured]
    assert looked_at_still == [row for row in looked_at if row not in measured]
    assert 0 < len(kept) < len(seen)
    number = len(seen) + len(looked_at) - len(kept) - len(looked_at_still)
    assert f"removed {number} texts" in caplog.text
    with pytest.raises(DataError, match="all texts are also in the labelled valid or test split"):
        pretrain.fn(make_context("pretrain"), test, valid, _params(base), held_out)


def test_a_new_head_alone_learns_faster() -> None:
    params = PretrainParams(base="package://tiny", lr=3e-4, mask=0.3, head_factor=7.0)
    for new, factor in ((True, 7.0), (False, 1.0)):
        found = params.training(new_head=new)
        assert (found.lr, found.objective.mask, found.head_factor, found.task) == (3e-4, 0.3, factor, "language_model")


def test_mistakes_are_named(base: Path, parts: tuple[Dataset, Dataset], make_context: Any, tmp_path: Path) -> None:
    def run(params: PretrainParams, train: Dataset = parts[0]) -> None:
        pretrain.fn(make_context("pretrain"), train, parts[1], params)

    with pytest.raises(ParamsError, match=r"no base model is set; .*pretrain\.base"):
        run(PretrainParams())
    with pytest.raises(DataError, match=r"is not a folder; .*set -s pretrain\.base"):
        run(_params(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"the train split has no rows"):
        run(_params(base), parts[0].model_copy(update={"rows": 0}))
    with pytest.raises(ParamsError, match="no metric f2; use one of perplexity, loss, accuracy"):
        run(_params(base, metric="f2", epochs=1))


def _job(base: Path, parts: tuple[Dataset, Dataset], scratch: Path) -> TrainingJob:
    params = _params(base, epochs=3, dropout=0.1, checkpoint_seconds=0.0).training(new_head=True)
    metadata = ModelMetadata(task="language_model", labels=(), label_kind="none", max_length=64)
    train, valid = (load_token_dataset(part.uri) for part in parts)
    return TrainingJob(
        load_task(metadata, params.objective), base, train, valid, params, seed=3, threads=1, scratch=scratch
    )


def _train(base: Path, parts: tuple[Dataset, Dataset], scratch: Path) -> None:
    """Run to the end; what a killed process was."""
    training = start_training(_job(base, parts, scratch))
    training.run()
    seen = hashlib.sha256()
    for name, weight in sorted(training.model.state_dict().items()):
        seen.update(name.encode() + weight.numpy().tobytes())
    (scratch / "digest").write_text(seen.hexdigest())


@pytest.mark.slow
def test_killed_and_resumed_it_ends_in_the_same_bits(
    base: Path, parts: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    kills = 0
    for name, steps in (("whole", ()), ("cut", (9, 25))):
        scratch = tmp_path / name
        scratch.mkdir()
        for step in (*steps, None):
            process = forks().Process(target=_train, args=(base, parts, scratch))
            process.start()
            while step is not None and process.is_alive():
                if any(int(path.name[5:]) >= step for path in scratch.glob("last/step-*")):
                    os.kill(process.pid or 0, signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.01)
            process.join()
    assert kills == 2
    assert (tmp_path / "whole" / "digest").read_text() == (tmp_path / "cut" / "digest").read_text()
