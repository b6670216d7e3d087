"""Fine-tuning of a decoder against TRL's SFTTrainer: `python -m tests.bench.generation_training`, 7 minutes.

The same model, the same rows in the same steps (8 rows of about 117 tokens), the same optimizer and learning rates, in
bfloat16. Contenders take turns, each in a process of its own: TRL as it comes (it recomputes activations), TRL without
recomputing, and Raypath; in full, and with LoRA of rank 16. Processor time is what to compare on a machine that others
use. TRL is in the group `bench`; `--base FOLDER` takes another decoder than the sample, SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.bench.against_trl import Comparison, Trial, compare, train_raypath, train_trl

ROWS, TOKENS, LONGEST = 320, 936, 160
LORA, RATE, WARMUP = 16, 1e-4, 0.1


def rows_of(base: Path, seed: int = 0) -> Any:
    """Reviews as conversations: the first half is the question, the second the answer, which is learned."""
    import numpy as np
    from transformers import AutoTokenizer

    from raypath.components.read import ReadParams, read
    from raypath.components.training.batches.token_dataset import TokenDataset
    from tests.bench.reviews import context, settled

    with tempfile.TemporaryDirectory(prefix="raypath-bench-") as folder:
        import pyarrow.parquet as pq

        ctx = context(Path(folder), "read", 1)
        data = settled(ctx, read.fn(ctx, ReadParams(uri="sample://reviews", text="review", label="score")))
        texts = pq.read_table(data.uri)["text"].to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids, masks = [], []
    for number in np.random.default_rng(seed).permutation(len(texts)):
        words = texts[number].split()
        half = len(words) // 2
        ask = f"<|im_start|>user\nGo on: {' '.join(words[:half])}<|im_end|>\n<|im_start|>assistant\n"
        question = tokenizer(ask, add_special_tokens=False)["input_ids"]
        answer = tokenizer(f"{' '.join(words[half:])}<|im_end|>", add_special_tokens=False)["input_ids"]
        if 60 <= len(question) + len(answer) <= LONGEST:
            ids.append(question + answer)
            masks.append([False] * len(question) + [True] * len(answer))
        if len(ids) == ROWS:
            break
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    flat = np.concatenate(ids).astype(np.int32)
    return TokenDataset(flat, offsets, np.zeros(len(ids), np.int64), loss_mask=np.concatenate(masks))


def raypath(trial: Trial) -> dict[str, float]:
    """Train as `finetune` does."""
    job, steps = _job(trial)
    train_raypath(trial, job, steps, job.train.lengths)
    return {}


def trl(trial: Trial, recompute: bool) -> dict[str, float]:
    """Train with SFTTrainer."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    job, steps = _job(trial)
    data = job.train
    places = [slice(data.offsets[n], data.offsets[n + 1]) for n in range(len(data))]
    table = {
        "input_ids": [data.ids[place].tolist() for place in places],
        "completion_mask": [data.loss_mask[place].astype(int).tolist() for place in places],
    }
    rows = Dataset.from_dict(table)
    more = {"per_device_train_batch_size": 8, "completion_only_loss": True, "max_length": None}
    more["gradient_checkpointing"] = recompute
    train_trl(trial, job, steps, data.lengths, SFTTrainer, SFTConfig, rows, **more)
    return {}


def _job(trial: Trial) -> tuple[Any, list[Any]]:
    """The training, and the row numbers of its steps."""
    from raypath.components.core.labels import LabelKind
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.batches.epoch_plan import EpochPlan
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.params import ResolvedParams

    rows = rows_of(trial.base)
    params = ResolvedParams(task="text_generation", epochs=1, lr=RATE, batch_tokens=TOKENS, frozen_layers=-1)
    params = params.override(
        {"lora": trial.lora, "warmup": WARMUP, "memory": "full", "precision": "bf16", "head_factor": 1.0}
    )
    metadata = ModelMetadata(task="text_generation", labels=(), label_kind=LabelKind.NONE, max_length=LONGEST)
    job = TrainingJob(load_task(metadata), trial.base, rows, rows, params, 0, trial.threads)
    return job, list(EpochPlan(rows, TOKENS, 0, 0, padded=False))


def line(one: dict[str, Any]) -> str:
    """Figures of a measurement."""
    speeds = f"{one['tokens'] / one['seconds']:.0f} tokens/s, {one['tokens'] / one['cpu']:.0f} a second of processor"
    curve = " ".join(f"{loss:.3f}" for loss in one["losses"])
    return f"{speeds}; peak {one['memory'] / 2**20:.0f} MiB; losses {curve}"


if __name__ == "__main__":
    compare(Comparison("tests.bench.generation_training", raypath, trl, line, steps=3, warmup=1, ranks=(0, LORA)))
