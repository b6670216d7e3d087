"""Fine-tuning of a decoder against TRL's SFTTrainer: `python -m tests.bench.generation_training --base FOLDER`.

The same model, the same rows in the same steps (8 rows of about 117 tokens), the same optimizer and learning rates, in
bfloat16. Contenders take turns, each in a process of its own: TRL as it comes (it recomputes activations), TRL without
recomputing, and Raypath; in full, and with LoRA of rank 16. Processor time is what to compare on a machine that others
use. TRL is in the group `bench`. FOLDER is outside the repository, such as a converted SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.clock import Clock, Enough, peak_memory

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("trl", "trl-plain", "raypath")
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


def raypath(base: Path, lora: int, clock: Clock, losses: list[float], threads: int) -> None:
    """Train as `finetune` does."""
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop.trainer import start_training

    job, steps = _job(base, lora, threads)
    assert isinstance(job, TrainingJob)
    training = start_training(job)
    lengths = job.train.lengths

    def on_step(step: int, _: int, metrics: dict[str, float]) -> None:
        losses.append(metrics["loss"])
        clock.step(lengths[steps[step - 1]])

    job.on_step = on_step
    clock.pause()
    training.run()


def trl(base: Path, lora: int, clock: Clock, losses: list[float], threads: int, recompute: bool) -> None:
    """Train with SFTTrainer on the steps of Raypath."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from raypath.components.training.loop.optimizer import groups, set_learning_rates

    torch.set_num_threads(threads)
    job, steps = _job(base, lora, threads)
    lengths, params, data = job.train.lengths, job.params, job.train

    class Same(SFTTrainer):  # type: ignore[misc]
        """Raypath's steps, optimizer and learning rates."""

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

    places = [slice(data.offsets[n], data.offsets[n + 1]) for n in range(len(data))]
    table = {
        "input_ids": [data.ids[place].tolist() for place in places],
        "completion_mask": [data.loss_mask[place].astype(int).tolist() for place in places],
    }
    with tempfile.TemporaryDirectory(prefix="raypath-trl-") as out:
        config = SFTConfig(
            output_dir=out,
            per_device_train_batch_size=8,
            num_train_epochs=1,
            bf16=True,
            use_cpu=True,
            gradient_checkpointing=recompute,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            max_length=None,
            disable_tqdm=True,
            completion_only_loss=True,
        )
        trainer = Same(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=config,
            train_dataset=Dataset.from_dict(table),
            processing_class=AutoTokenizer.from_pretrained(base),
            peft_config=LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM")
            if lora
            else None,
            callbacks=[Watch()],
        )
        clock.pause()
        trainer.train()


def _job(base: Path, lora: int, threads: int) -> tuple[Any, list[Any]]:
    """The training, and the row numbers of its steps."""
    from raypath.components.core.labels import LabelKind
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.batches.epoch_plan import EpochPlan
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.params import ResolvedParams

    rows = rows_of(base)
    params = ResolvedParams(task="text_generation", epochs=1, lr=RATE, batch_tokens=TOKENS, frozen_layers=-1)
    params = params.override(
        {"lora": lora, "warmup": WARMUP, "memory": "full", "precision": "bf16", "head_factor": 1.0}
    )
    metadata = ModelMetadata(task="text_generation", labels=(), label_kind=LabelKind.NONE, max_length=LONGEST)
    job = TrainingJob(load_task(metadata), base, rows, rows, params, 0, threads)
    return job, list(EpochPlan(rows, TOKENS, 0, 0, padded=False))


def child(chosen: argparse.Namespace) -> dict[str, Any]:
    """One measurement in this process."""
    clock, losses = Clock(chosen.warmup, chosen.steps), list[float]()
    base, lora, threads = Path(chosen.base), chosen.lora, chosen.threads
    with contextlib.suppress(Enough):
        if chosen.child == "raypath":
            raypath(base, lora, clock, losses, threads)
        else:
            trl(base, lora, clock, losses, threads, chosen.child == "trl")
    return {**clock.figures(), "losses": losses, "memory": peak_memory()}


def measure(name: str, lora: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.generation_training", "--child", name, "--lora", str(lora)]
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
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generation_training")
    parser.add_argument("--base", required=True, help="folder of a decoder, outside the repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="steps timed, after the warm-up")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[0, LORA], help="ranks of LoRA; 0 trains in full")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--lora", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(words)


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
                one = measure(name, lora, chosen)
                found[name].append(one)
                print(f"round {number + 1}, rank {lora}: {name}", line(one), flush=True)
        for name, rounds in found.items():
            print(f"rank {lora}, median: {name}", line(sorted(rounds, key=lambda one: one["cpu"])[len(rounds) // 2]))


def line(one: dict[str, Any]) -> str:
    """Figures of a measurement."""
    speeds = f"{one['tokens'] / one['seconds']:.0f} tokens/s, {one['tokens'] / one['cpu']:.0f} a second of processor"
    curve = " ".join(f"{loss:.3f}" for loss in one["losses"])
    return f"{speeds}; peak {one['memory'] / 2**20:.0f} MiB; losses {curve}"


if __name__ == "__main__":
    main()
