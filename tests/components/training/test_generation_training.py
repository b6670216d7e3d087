"""A decoder learns answers in packed batches: in full and with adapters, in one process and two, killed and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.models.decoder.packed_batch import IGNORED
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.sampler import pack, plan_rows, share
from raypath.components.training.batches.token_dataset import StreamedTokens, load_token_dataset
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.model_setup import remarks
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from tests.forks import forks
from tests.tiny_decoders import answers, decoder_folder

SETTINGS = {
    **{"task": "text_generation", "epochs": 2, "lr": 3e-3, "batch_tokens": 256, "patience": 0, "frozen_layers": -1},
    **{"memory": "full", "precision": "fp32"},
}
METADATA = ModelMetadata(task="text_generation", labels=(), label_kind=LabelKind.NONE, max_length=64)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


def _training(folder: Path, scratch: Path | None = None, count: int = 200, **changes: Any) -> Training:
    params = ResolvedParams().override(SETTINGS | changes)
    train, valid = answers(count), answers(40, seed=1)
    return start_training(TrainingJob(load_task(METADATA), folder, train, valid, params, 3, 1, scratch=scratch))


def _losses(training: Training) -> list[float]:
    found: list[float] = []
    training.job.on_step = lambda step, steps, metrics: found.append(metrics["loss"])
    training.run()
    return found


def test_it_learns_the_answers(decoder: Path) -> None:
    training = _training(decoder, epochs=8)
    before = training.validate()
    after = training.run()
    assert before["accuracy"] < 0.3
    assert after["loss"] < before["loss"] - 2
    assert after["perplexity"] == pytest.approx(np.exp(after["loss"]))
    assert training.validate() == after, "the weights are those of the best pass"


@pytest.mark.parametrize("lora", [0, 4])
def test_micro_batches_and_recomputing_leave_the_curve_as_it_is(decoder: Path, lora: int) -> None:
    pytest.importorskip("peft", reason="extra lora is not installed")
    whole = _losses(_training(decoder, lora=lora))
    parts = _losses(_training(decoder, lora=lora, micro_tokens=60, gradient_checkpointing=True))
    assert parts == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("kind", ["phi3 with joined matrices", "mixtral with experts", "mamba"])
def test_decoders_with_layers_of_other_kinds_train_alike(kind: str, tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path, kind)
    whole = _training(folder, epochs=1)
    losses = _losses(whole)
    assert losses[-1] < losses[0] - 0.5
    parts = _losses(_training(folder, epochs=1, micro_tokens=100, gradient_checkpointing=kind != "mamba"))
    assert parts == pytest.approx(losses, abs=1e-3)
    assert [line.split(":")[0] for line in remarks(whole.prepared)] == (
        ["rows are padded to the longest of a batch"] if kind == "mamba" else []
    )


def test_experts_without_adapters_are_told(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="extra lora is not installed")
    training = _training(decoder_folder(tmp_path, "mixtral with experts"), epochs=1, lora=4)
    assert all(".self_attn." in name for name in training.prepared.trained())
    assert remarks(training.prepared) == [
        "the experts of this mixtral have no adapters: transformers keeps them in one tensor"
    ]


@pytest.mark.parametrize("lora", [0, 4])
def test_frozen_layers_stay_as_they_are(decoder: Path, lora: int) -> None:
    pytest.importorskip("peft", reason="extra lora is not installed")
    training = _training(decoder, frozen_layers=1, lora=lora, epochs=1)
    before = {name: weight.detach().clone() for name, weight in training.model.named_parameters()}
    losses = _losses(training)
    assert losses[-1] < losses[0] - 0.05
    changed = {name for name, weight in training.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed <= set(training.prepared.trained())
    assert {name.partition("layers.")[2][:1] for name in changed} == ({"1"} if lora else {"1", ""})
    assert not any("embed" in name for name in changed), "the embeddings are frozen, and the head that is tied to them"


def test_a_budget_counts_tokens_and_no_padding() -> None:
    lengths = np.array([10, 1, 9, 3, 3, 3, 30])
    cuts = pack(lengths, np.arange(7), 12, padded=False)
    assert [cut.tolist() for cut in cuts] == [[0, 1], [2, 3], [4, 5], [6]]
    steps = plan_rows(lengths, np.arange(7), 20, np.random.default_rng(0), padded=False)
    assert sorted(np.concatenate(steps).tolist()) == list(range(7))
    assert all(lengths[step].sum() <= 20 or len(step) == 1 for step in steps)
    shares = share(lengths, np.arange(7), 2, 12, padded=False)
    assert sorted(row for mine in shares for cut in mine for row in cut) == list(range(7))


def test_masks_are_read_with_their_rows_in_memory_and_streamed(tmp_path: Path) -> None:
    made = answers(5_000)
    ids = pa.ListArray.from_arrays(pa.array(made.offsets, pa.int32()), pa.array(made.ids))
    masks = pa.ListArray.from_arrays(pa.array(made.offsets, pa.int32()), pa.array(made.loss_mask))
    table = pa.table({"input_ids": ids, "loss_mask": masks})
    with TableWriter(tmp_path, table.schema) as writer:
        writer.write(table)
    memory, streamed = load_token_dataset(tmp_path), load_token_dataset(tmp_path, window=50_000)
    assert isinstance(streamed, StreamedTokens)
    chosen = np.array([3, 4_999, 0, 77])
    wanted = made.packed(chosen)
    for rows in (memory, streamed):
        batch = rows.packed(chosen)
        assert batch.keys() == wanted.keys()
        assert all(torch.equal(batch[name], wanted[name]) for name in wanted)
    assert 0 < int((wanted["labels"] != IGNORED).sum()) < wanted["labels"].numel() / 2 + 4


def test_a_mask_of_another_length_is_told(tmp_path: Path) -> None:
    table = pa.table({"input_ids": [[1, 2, 3]], "loss_mask": [[True, False]]})
    with TableWriter(tmp_path, table.schema) as writer:
        writer.write(table)
    with pytest.raises(DataError, match="loss_mask of another length than its input_ids"):
        load_token_dataset(tmp_path)


def test_an_encoder_is_no_base(base: Path) -> None:
    with pytest.raises(DataError, match="predicts hidden tokens; wanted a decoder"):
        _training(base)


def _train(rank: int, ranks: int, folder: Path, place: Path, changes: dict[str, Any]) -> None:
    """One of `ranks` processes."""
    import torch.distributed as dist

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks)
    training = _training(folder, None, **changes)
    losses = _losses(training)
    metrics = training.validate()
    training.prepared.save(place)
    if rank == 0:
        (place / "losses.json").write_text(json.dumps([losses, metrics["loss"]]))
    # DDP holds the group: its end, with the GIL, would wait for a thread of gloo that waits for the GIL.
    del training
    if ranks > 1:
        dist.destroy_process_group()


def _together(folder: Path, place: Path, ranks: int, changes: dict[str, Any]) -> tuple[list[float], float]:
    place.mkdir()
    processes = [forks().Process(target=_train, args=(rank, ranks, folder, place, changes)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * ranks
    losses, valid = json.loads((place / "losses.json").read_text())
    return losses, valid


@pytest.mark.parametrize("changes", [{}, {"shard": True}, {"lora": 4}])
def test_two_processes_give_the_curve_of_one(decoder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    training = _training(decoder, **{**changes, "shard": False})
    alone = _losses(training)
    losses, valid = _together(decoder, tmp_path / "two", 2, changes)
    assert losses == pytest.approx(alone, abs=1e-3)
    assert valid == pytest.approx(training.validate()["loss"], abs=1e-3)


def _interrupted(folder: Path, scratch: Path, note: Path) -> None:
    """Train with adapters and checkpoints in bfloat16; at the end, write the digest of what was trained."""
    changes = {"lora": 4, "lora_dropout": 0.1, "checkpoint_seconds": 0.05, "precision": "bf16", "epochs": 6}
    training = _training(folder, scratch, count=400, **changes)

    def on_step(step: int, steps: int, metrics: dict[str, float]) -> None:
        with open(note, "a", encoding="utf-8") as file:
            file.write(f"{step} {metrics['loss']}\n")

    training.job.on_step = on_step
    training.run()
    seen = hashlib.sha256()
    for name, weight in sorted(training.prepared.trained().items()):
        seen.update(name.encode() + weight.detach().numpy().tobytes())
    note.with_suffix(".digest").write_text(seen.hexdigest())


def test_a_killed_training_of_adapters_ends_in_the_same_bits(decoder: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _interrupted(decoder, tmp_path / "a", whole)
    kills = 0
    for _ in range(6):
        process = forks().Process(target=_interrupted, args=(decoder, tmp_path / "b", cut))
        process.start()
        began, have = time.time(), _steps(cut)
        while kills < 2 and process.is_alive() and _steps(cut) < have + 12 and time.time() < began + 60:
            time.sleep(0.005)
        if kills < 2 and process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
    assert kills == 2
    assert process.exitcode == 0
    assert cut.with_suffix(".digest").read_text() == whole.with_suffix(".digest").read_text()
    lines = dict(line.split() for line in whole.read_text().splitlines())
    assert all(lines[step] == loss for step, loss in (line.split() for line in cut.read_text().splitlines()[:-1]))


def _steps(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0
