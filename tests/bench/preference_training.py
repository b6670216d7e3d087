"""DPO of a decoder against TRL's DPOTrainer: `python -m tests.bench.preference_training --base FOLDER`.

In about five minutes on two cores: `--only trl-plain raypath --rounds 2 --steps 1`.

The same model, pairs, steps, optimizer and learning rates, in bfloat16. A pair is a review's first half as the prompt,
its second half as the chosen answer and that of another review as the rejected one. Raypath scores the reference first,
and the time for it is spread over the steps; TRL computes it in each step, as it comes. Contenders take turns, each in
a process of its own. Processor time is what to compare on a machine that others use. TRL is in the group `bench`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.bench.against_trl import Comparison, Trial, compare, train_raypath, train_trl
from tests.bench.generation_training import LONGEST, LORA, rows_of

PAIRS, TOKENS, RATE, WARMUP, BETA = 160, 1500, 1e-5, 0.1, 0.1


def pairs_of(base: Path) -> Any:
    """Pairs as a preprocessed table."""
    import pyarrow as pa

    rows = rows_of(base)
    ids, masks = [], []
    for row in range(PAIRS + 1):
        place = slice(rows.offsets[row], rows.offsets[row + 1])
        ids.append(rows.ids[place].tolist())
        masks.append(rows.loss_mask[place].tolist())
    starts = [mask.index(True) for mask in masks]
    rejected = [ids[row][: starts[row]] + ids[row + 1][starts[row + 1] :] for row in range(PAIRS)]
    rejected_masks = [[n >= starts[row] for n in range(len(found))] for row, found in enumerate(rejected)]
    return pa.table(
        {
            "input_ids": pa.array(ids[:PAIRS], pa.list_(pa.int32())),
            "loss_mask": pa.array(masks[:PAIRS], pa.list_(pa.bool_())),
            "rejected_ids": pa.array(rejected, pa.list_(pa.int32())),
            "rejected_mask": pa.array(rejected_masks, pa.list_(pa.bool_())),
        }
    )


def raypath(trial: Trial) -> dict[str, float]:
    """Score the reference, and train as `finetune` does. scoring: seconds for the timed pairs."""
    import numpy as np

    from raypath.components.training.batches.reference_scores import ReferenceScores, add_scores
    from raypath.components.training.batches.token_dataset import in_memory

    table = pairs_of(trial.base)
    job, steps = job_of(trial, in_memory(table))
    used = np.sort(np.concatenate(steps[: trial.clock.warmup + trial.clock.steps]))
    scores = ReferenceScores(trial.base, trial.threads, "bf16", LONGEST)
    scores.of(table.take(used))  # the first pass compiles kernels
    began = time.perf_counter(), time.process_time()
    found = np.zeros((len(table), 2), np.float32)
    found[used] = scores.of(table.take(used))
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    scores.release()
    job, steps = job_of(trial, in_memory(add_scores(table, found)))
    train_raypath(trial, job, steps, tokens_of(table))
    share = trial.clock.rows / len(used)
    return {"scoring": wall * share, "scoring_cpu": cpu * share}


def trl(trial: Trial, recompute: bool) -> dict[str, float]:
    """Train with DPOTrainer, which computes the reference in each step."""
    from raypath.components.training.batches.token_dataset import in_memory

    table = pairs_of(trial.base)
    job, steps = job_of(trial, in_memory(table))
    train_trl_on(trial, table, job, steps, gradient_checkpointing=recompute)
    return {"scoring": 0.0, "scoring_cpu": 0.0}


def train_trl_on(trial: Trial, table: Any, job: Any, steps: list[Any], **more: Any) -> None:
    """Train with DPOTrainer on pairs as a preprocessed table. more: options of its configuration."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Prepared(DPOTrainer):  # type: ignore[misc]
        """Raypath's rows, which have token ids."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    rows = Dataset.from_list(_trl_rows(table))
    more = {"beta": BETA, "max_length": None, **more}
    train_trl(trial, job, steps, tokens_of(table), Prepared, DPOConfig, rows, **more)


def _trl_rows(table: Any) -> list[dict[str, list[int]]]:
    """Rows as DPOTrainer's collator takes them."""
    rows = []
    for row in table.to_pylist():
        start = row["loss_mask"].index(True)
        found = {"prompt_ids": row["input_ids"][:start], "chosen_ids": row["input_ids"][start:]}
        rows.append({**found, "rejected_ids": row["rejected_ids"][start:]})
    return rows


def tokens_of(table: Any) -> Any:
    """Tokens of both answers of each pair with their prompts, int [N]."""
    counts = [table[name].combine_chunks().value_lengths().to_numpy() for name in ("input_ids", "rejected_ids")]
    return counts[0] + counts[1]


def job_of(trial: Trial, rows: Any, **other: Any) -> tuple[Any, list[Any]]:
    """The training, and the row numbers of its steps. other: settings by name."""
    from raypath.components.core.columns import Column
    from raypath.components.core.labels import LabelKind
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.batches.epoch_plan import EpochPlan
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.params import ResolvedParams

    changes = {"task": "preference", "objective.beta": BETA, "epochs": 1, "lr": RATE, "batch_tokens": TOKENS}
    more = {"lora": trial.lora, "warmup": WARMUP, "memory": "full", "precision": "bf16", "frozen_layers": -1}
    params = ResolvedParams().override(changes | more | other)
    metadata = ModelMetadata(
        task="preference",
        labels=(),
        label_kind=LabelKind.NONE,
        max_length=LONGEST,
        columns=(Column(name="pair", kind="preference", stored="input.pair"),),
    )
    job = TrainingJob(load_task(metadata, params.objective), trial.base, rows, rows, params, 0, trial.threads)
    return job, list(EpochPlan(rows, params.batch_tokens, 0, 0, padded=False))


def line(one: dict[str, Any]) -> str:
    """Figures of a measurement; tokens are those of both answers with their prompts."""
    wall, cpu = one["seconds"] + one["scoring"], one["cpu"] + one["scoring_cpu"]
    speed = f"{one['tokens'] / wall:.1f} tokens/s, {one['tokens'] / cpu:.1f} a second of processor"
    share = f"{one['scoring_cpu'] / cpu:.0%} the reference"
    losses = " ".join(f"{loss:.3f}" for loss in one["losses"])
    return f"{speed} ({share}); peak {one['memory'] / 2**20:.0f} MiB; losses {losses}"


if __name__ == "__main__":
    compare(Comparison("tests.bench.preference_training", raypath, trl, line, steps=4, warmup=1, ranks=(0, LORA)))
