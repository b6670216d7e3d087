"""DPO of a decoder against TRL's DPOTrainer: `python -m tests.bench.preference_training --base FOLDER`.

The same model, pairs, steps, optimizer and learning rates, in bfloat16. A pair is a review's first half as the prompt,
its second half as the chosen answer and that of another review as the rejected one. Raypath scores the reference first,
and the time for it is spread over the steps; TRL computes it in each step, as it comes. Contenders take turns, each in
a process of its own. Processor time is what to compare on a machine that others use. TRL is in the group `bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.clock import Clock, Enough, peak_memory
from tests.bench.generation_training import LONGEST, ROOT, rows_of

NAMES = ("trl", "trl-plain", "raypath")
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


def raypath(base: Path, lora: int, clock: Clock, losses: list[float], threads: int) -> float:
    """Score the reference, and train as `finetune` does. Returns the seconds of processor time per pair of scoring."""
    from raypath.components.training.batches.reference_scores import ReferenceScores, add_scores
    from raypath.components.training.batches.token_dataset import in_memory
    from raypath.components.training.loop.trainer import start_training

    table = pairs_of(base)
    scores = ReferenceScores(base, threads, "bf16", LONGEST)
    few = table.slice(0, 32)
    scores.of(few.slice(0, 4))
    started = time.process_time()
    scores.of(few)
    scoring = (time.process_time() - started) / len(few)
    job, steps = _job(base, in_memory(add_scores(table, scores.of(table))), lora, threads)
    training = start_training(job)
    lengths = _tokens(table)

    def on_step(step: int, _: int, metrics: dict[str, float]) -> None:
        losses.append(metrics["loss"])
        clock.step(lengths[steps[step - 1]])

    job.on_step = on_step
    clock.pause()
    with contextlib.suppress(Enough):
        training.run()
    return scoring


def trl(base: Path, lora: int, clock: Clock, losses: list[float], threads: int, recompute: bool) -> float:
    """Train with DPOTrainer on the steps of Raypath."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from raypath.components.training.batches.token_dataset import in_memory
    from raypath.components.training.loop.optimizer import groups, set_learning_rates

    torch.set_num_threads(threads)
    table = pairs_of(base)
    job, steps = _job(base, in_memory(table), lora, threads)
    params, lengths = job.params, _tokens(table)

    class Same(DPOTrainer):  # type: ignore[misc]
        """Raypath's rows, steps, optimizer and learning rates."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def get_train_dataloader(self) -> Any:
            chosen = [step.tolist() for step in steps]
            return torch.utils.data.DataLoader(self.train_dataset, batch_sampler=chosen, collate_fn=self.data_collator)

        def create_optimizer(self, *_: Any, **__: Any) -> Any:
            self.optimizer = torch.optim.AdamW(groups(self.model, params), lr=params.lr, fused=True)
            return self.optimizer

        def create_scheduler(self, *_: Any, **__: Any) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)
            return self.lr_scheduler

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Time, losses and learning rates."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            own = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
            set_learning_rates(own, params, len(losses), len(steps))

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))
                clock.step(lengths[steps[len(losses) - 1]])

    with tempfile.TemporaryDirectory(prefix="raypath-trl-") as out:
        config = DPOConfig(
            output_dir=out,
            num_train_epochs=1,
            bf16=True,
            use_cpu=True,
            gradient_checkpointing=recompute,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            max_length=None,
            beta=BETA,
            disable_tqdm=True,
        )
        adapters = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = Same(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=config,
            train_dataset=Dataset.from_list(_trl_rows(table)),
            processing_class=AutoTokenizer.from_pretrained(base),
            peft_config=adapters if lora else None,
            callbacks=[Watch()],
        )
        clock.pause()
        with contextlib.suppress(Enough):
            trainer.train()
    return 0.0


def _trl_rows(table: Any) -> list[dict[str, list[int]]]:
    """Rows as DPOTrainer's collator takes them."""
    rows = []
    for row in table.to_pylist():
        start = row["loss_mask"].index(True)
        found = {"prompt_ids": row["input_ids"][:start], "chosen_ids": row["input_ids"][start:]}
        rows.append({**found, "rejected_ids": row["rejected_ids"][start:]})
    return rows


def _tokens(table: Any) -> Any:
    """Tokens of both answers of each pair with their prompts, int [N]."""
    counts = [table[name].combine_chunks().value_lengths().to_numpy() for name in ("input_ids", "rejected_ids")]
    return counts[0] + counts[1]


def _job(base: Path, rows: Any, lora: int, threads: int) -> tuple[Any, list[Any]]:
    """The training, and the row numbers of its steps."""
    from raypath.components.core.columns import Column
    from raypath.components.core.labels import LabelKind
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.batches.epoch_plan import EpochPlan
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.params import ResolvedParams

    changes = {"task": "preference", "objective.beta": BETA, "epochs": 1, "lr": RATE, "batch_tokens": TOKENS}
    more = {"lora": lora, "warmup": WARMUP, "memory": "full", "precision": "bf16", "frozen_layers": -1}
    params = ResolvedParams().override(changes | more)
    metadata = ModelMetadata(
        task="preference",
        labels=(),
        label_kind=LabelKind.NONE,
        max_length=LONGEST,
        columns=(Column(name="pair", kind="preference", stored="input.pair"),),
    )
    job = TrainingJob(load_task(metadata, params.objective), base, rows, rows, params, 0, threads)
    return job, list(EpochPlan(rows, TOKENS, 0, 0, padded=False))


def child(chosen: argparse.Namespace) -> dict[str, Any]:
    """One measurement in this process. scoring: seconds of processor time for the reference, of the timed pairs."""
    clock, losses = Clock(chosen.warmup, chosen.steps), list[float]()
    base, lora, threads = Path(chosen.base), chosen.lora, chosen.threads
    if chosen.child == "raypath":
        scoring = raypath(base, lora, clock, losses, threads)
    else:
        scoring = trl(base, lora, clock, losses, threads, chosen.child == "trl")
    return {**clock.figures(), "losses": losses, "memory": peak_memory(), "scoring": scoring * clock.rows}


def measure(name: str, lora: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.preference_training", "--child", name, "--lora", str(lora)]
    for option in ("base", "steps", "warmup", "threads"):
        command += [f"--{option}", str(getattr(chosen, option))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def options(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.preference_training")
    parser.add_argument("--base", required=True, help="folder of a decoder, outside the repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps timed, after the warm-up")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[0], help="ranks of LoRA; 0 trains in full")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--lora", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def line(one: dict[str, Any]) -> str:
    """Figures of a measurement; tokens are those of both answers with their prompts."""
    cpu = one["cpu"] + one["scoring"]
    speed = f"{one['tokens'] / cpu:.1f} tokens a second of processor ({one['scoring'] / cpu:.0%} the reference)"
    return f"{speed}; peak {one['memory'] / 2**20:.0f} MiB; losses {' '.join(f'{loss:.3f}' for loss in one['losses'])}"


def main() -> None:
    """Measure in turns and print a table."""
    chosen = options()
    if chosen.child:
        print(json.dumps(child(chosen)))
        return
    for lora in chosen.ranks:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen.only}
        for number in range(chosen.rounds):
            first = number % len(chosen.only)
            for name in chosen.only[first:] + chosen.only[:first]:
                found[name].append(one := measure(name, lora, chosen))
                print(f"round {number + 1}, rank {lora}: {name}", line(one), flush=True)
        for name, rounds in found.items():
            print(f"rank {lora}, median: {name}", line(sorted(rounds, key=lambda one: one["cpu"])[len(rounds) // 2]))


if __name__ == "__main__":
    main()
