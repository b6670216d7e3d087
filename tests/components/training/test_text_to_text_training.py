"""Encoder-decoders learn targets in the one loop: the loss of transformers, adapters, the same bits after a kill."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.conversations import Conversation
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.models.adapters import open_model
from raypath.components.models.chat_template.source_target import load_template
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.token_dataset import TokenDataset
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from tests.tiny_chat import chat_folder
from tests.tiny_seq2seq import KINDS, seq2seq_folder, seq2seq_tokenizer

SETTINGS = {
    **{"task": "text_to_text", "epochs": 2, "lr": 3e-3, "batch_tokens": 512, "patience": 0, "frozen_layers": -1},
    **{"memory": "full", "precision": "fp32"},
}
METADATA = ModelMetadata(task="text_to_text", labels=(), label_kind=LabelKind.NONE, max_length=64)
PAIRS = [("hello there", "hola"), ("x", "</s> a far longer target"), ("good day to you all", "buen día"), ("", "?")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: seq2seq_folder(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def rows_of(folder: Path, pairs: list[tuple[str, str]], weights: Any = None) -> TokenDataset:
    """Rows as `preprocess` makes them."""
    both = [({"role": "user", "content": one}, {"role": "assistant", "content": two}) for one, two in pairs]
    rows = load_template(folder).encode_all([Conversation(each) for each in both])  # type: ignore[arg-type]
    return TokenDataset(
        np.concatenate([np.array(row.ids, np.int32) for row in rows]),
        np.concatenate([[0], np.cumsum([len(row.ids) for row in rows])]).astype(np.int64),
        np.zeros(len(rows), np.int64),
        weights=weights,
        loss_mask=np.concatenate([np.array(row.mask) for row in rows]),
    )


def words(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sources of two words, and their first letters as targets."""
    rng = np.random.default_rng(seed)
    known = ["red", "green", "blue", "owl", "gull", "deer"]
    chosen = [rng.choice(known, 2) for _ in range(count)]
    return [(" ".join(each), "".join(word[0] for word in each)) for each in chosen]


def _training(folder: Path, scratch: Path | None = None, count: int = 120, **changes: Any) -> Training:
    params = ResolvedParams().override(SETTINGS | changes)
    train, valid = rows_of(folder, words(count)), rows_of(folder, words(30, seed=1))
    return start_training(TrainingJob(load_task(METADATA), folder, train, valid, params, 3, 1, scratch=scratch))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_transformers(bases: dict[str, Path], kind: str) -> None:
    task = load_task(METADATA)
    model = task.build(str(bases[kind]), 0.0).eval()
    module, tokenizer = task.module(model), seq2seq_tokenizer()
    batch = rows_of(bases[kind], PAIRS).packed(np.arange(len(PAIRS)))
    found = task.loss(task.forward(module, batch), batch) / task.weight(batch)
    found.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    given: dict[str, Any] = {"return_tensors": "pt", "padding": True, "split_special_tokens": True}
    asked = tokenizer([one for one, _ in PAIRS], **given)
    targets = tokenizer([two for _, two in PAIRS], **given)
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    assert int((labels != -100).sum()) == task.weight(batch)
    wanted = model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], labels=labels)
    wanted.loss.backward()
    assert found.item() == pytest.approx(wanted.loss.item(), abs=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        sums = task.record(task.forward(module, batch), batch)
    lost = torch.nn.functional.cross_entropy(wanted.logits.transpose(1, 2), labels, reduction="none").sum(1)
    torch.testing.assert_close(sums[:, 0], lost.detach(), atol=1e-4, rtol=1e-5)
    assert sums[:, 1].tolist() == (labels != -100).sum(1).tolist()
    right = (wanted.logits.argmax(2) == labels).sum(1)
    assert sums[:, 2].tolist() == right.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_a_model_in_16_bits_has_the_loss_of_one_in_32(bases: dict[str, Path], kind: str, dtype: torch.dtype) -> None:
    """As evaluations open it."""
    task = load_task(METADATA)
    batch = rows_of(bases[kind], PAIRS).packed(np.arange(len(PAIRS)))
    with torch.no_grad():
        wide, narrow = (
            float(task.forward(task.module(task.build(str(bases[kind]), 0.0).eval().to(each)), batch)[0].sum())
            for each in (torch.float32, dtype)
        )
    assert narrow == pytest.approx(wide, rel=0.01)


def test_rows_count_by_their_weights(bases: dict[str, Path]) -> None:
    task = load_task(METADATA)
    module = task.module(task.build(str(bases["t5"]), 0.0).eval())
    twice = rows_of(bases["t5"], [PAIRS[0], PAIRS[0], PAIRS[2]])
    weighted = rows_of(bases["t5"], [PAIRS[0], PAIRS[2]], np.array([2.0, 1.0], np.float32))
    made = [rows.packed(np.arange(len(rows))) for rows in (twice, weighted)]
    assert task.weight(made[0]) == task.weight(made[1])
    losses = [task.forward(module, batch).item() for batch in made]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_the_targets(bases: dict[str, Path], kind: str) -> None:
    training = _training(bases[kind], epochs=12, lr=1e-2)
    before = training.validate()
    after = training.run()
    assert after["loss"] < before["loss"] - 2
    assert after["accuracy"] > 0.5 > before["accuracy"]
    assert training.validate() == after, "the weights are those of the best pass"


def test_micro_batches_and_recomputing_leave_the_curve_as_it_is(bases: dict[str, Path]) -> None:
    curves = []
    for changes in ({}, {"micro_tokens": 100, "gradient_checkpointing": True}):
        training, found = _training(bases["bart"], **changes), []
        training.job.on_step = lambda step, steps, metrics, found=found: found.append(metrics["loss"])
        training.run()
        curves.append(found)
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


class _Killed(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_ends_in_the_same_bits(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    def digest(training: Training) -> str:
        seen = hashlib.sha256()
        for name, weight in sorted(training.prepared.trained().items()):
            seen.update(name.encode() + weight.detach().numpy().tobytes())
        return seen.hexdigest()

    def stop(step: int, steps: int, metrics: dict[str, float]) -> None:
        if step == 5:
            raise _Killed

    whole = _training(bases[kind], dropout=0.1)
    whole.run()
    scratch = tmp_path / "scratch"
    cut = _training(bases[kind], scratch, dropout=0.1, checkpoint_seconds=0.001)
    cut.job.on_step = stop
    with pytest.raises(_Killed):
        cut.run()
    resumed = _training(bases[kind], scratch, dropout=0.1, checkpoint_seconds=0.001)
    steps: list[int] = []
    resumed.job.on_step = lambda step, total, metrics: steps.append(step)
    resumed.run()
    assert 1 < steps[0] <= 6
    assert steps[-1] == resumed.steps
    assert digest(resumed) == digest(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_alone_answer_as_merged(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    pytest.importorskip("peft", reason="extra lora is not installed")
    from raypath.components.models.adapters import base_identity

    metadata = METADATA.model_copy(update={"base": str(bases[kind])})
    params = ResolvedParams().override(SETTINGS | {"lora": 4, "lr": 1e-2})
    rows = rows_of(bases[kind], words(60))
    training = start_training(TrainingJob(load_task(metadata), bases[kind], rows, rows, params, 3, 1))
    before = training.validate()["loss"]
    assert training.run()["loss"] < before - 0.1
    training.prepared.save(tmp_path)
    write_metadata(tmp_path, metadata.model_copy(update=base_identity(bases[kind])))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("adapter_config.json", "adapter_model.safetensors", "raypath.json")
    ]
    assert '"task_type": "SEQ_2_SEQ_LM"' in (tmp_path / "adapter_config.json").read_text()
    ids = torch.tensor([[40, 50, 60, 1]])
    apart, merged = (open_model(tmp_path, merged=merged) for merged in (False, True))
    with torch.no_grad():
        logits = [model(input_ids=ids, decoder_input_ids=ids).logits for model in (apart, merged)]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
    module = load_task(metadata).module(merged)
    batch = rows.packed(np.arange(len(rows)))
    with torch.no_grad():
        sums = load_task(metadata).record(load_task(metadata).forward(module, batch), batch).sum(0)
    assert float(sums[0] / sums[1]) == pytest.approx(training.validate()["loss"], rel=1e-4)


def test_a_base_of_the_other_kind_is_told(bases: dict[str, Path], tmp_path: Path) -> None:
    decoder = chat_folder(tmp_path / "decoder")
    with pytest.raises(DataError, match="is a llama; wanted an encoder-decoder such as T5, BART or Marian"):
        load_task(METADATA).build(str(decoder), None)
    chat = METADATA.model_copy(update={"task": "text_generation"})
    with pytest.raises(DataError, match=r"is an encoder-decoder \(t5\); wanted a decoder") as caught:
        load_task(chat).build(str(bases["t5"]), None)
    assert "workflow text_to_text" in caught.value.fix


def test_a_base_that_selects_a_language_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mbart", "is_encoder_decoder": true}', encoding="utf-8")
    with pytest.raises(DataError, match="is a mbart, whose first token selects a language"):
        load_task(METADATA).build(str(tmp_path), None)
