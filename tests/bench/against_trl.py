"""Comparison of a decoder's training with TRL: contenders take turns, each in a process of its own.

The same steps, optimizer and learning rates for all. trl: as it comes (it recomputes activations); trl-plain: without
recomputing. A contender returns further figures, and adds the loss of each step to `losses`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypath.components.models.base_models import base_folder
from raypath.components.models.conversion.packaged import CHAT
from tests.bench.clock import Clock, Enough, peak_memory

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("trl", "trl-plain", "raypath")


@dataclass(frozen=True)
class Trial:
    """One measurement. base: folder of the decoder; lora: rank of LoRA, 0 trains in full."""

    base: Path
    lora: int
    threads: int
    clock: Clock
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """A module that compares. steps, warmup, ranks: defaults of its options.

    raypath, trl: train, the latter with recomputing or without; line: format the figures of a measurement.
    """

    module: str
    raypath: Callable[[Trial], dict[str, float]]
    trl: Callable[[Trial, bool], dict[str, float]]
    line: Callable[[dict[str, Any]], str]
    steps: int
    warmup: int
    ranks: tuple[int, ...]


def train_raypath(trial: Trial, job: Any, steps: list[Any], lengths: Any) -> None:
    """Train as `finetune` does. steps: row numbers; lengths: tokens of each row, int [N]."""
    from raypath.components.training.loop.trainer import start_training

    training = start_training(job)

    def on_step(step: int, _: int, metrics: dict[str, float]) -> None:
        trial.losses.append(metrics["loss"])
        trial.clock.step(lengths[steps[step - 1]])

    job.on_step = on_step
    trial.clock.pause()
    with contextlib.suppress(Enough):
        training.run()


def train_trl(
    trial: Trial, job: Any, steps: list[Any], lengths: Any, trainer_type: Any, config_type: Any, rows: Any, **more: Any
) -> None:
    """Train with a trainer of TRL on the steps of Raypath. rows: a Dataset; more: options of the configuration."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from raypath.components.training.loop.optimizer import groups, set_learning_rates

    torch.set_num_threads(trial.threads)
    clock, losses, params = trial.clock, trial.losses, job.params

    class Same(trainer_type):  # type: ignore[misc]
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

    adapters = None
    if rank := trial.lora:
        adapters = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory(prefix="raypath-trl-") as out:
        config = config_type(
            output_dir=out,
            num_train_epochs=1,
            bf16=params.precision == "bf16",
            use_cpu=True,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **more,
        )
        trainer = Same(
            model=AutoModelForCausalLM.from_pretrained(trial.base, dtype=torch.float32),
            args=config,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(trial.base),
            peft_config=adapters,
            callbacks=[Watch()],
        )
        clock.pause()
        with contextlib.suppress(Enough):
            trainer.train()


def compare(comparison: Comparison) -> None:
    """Measure in turns and print a table."""
    chosen = _options(comparison)
    if chosen.child:
        print(json.dumps(_measured_here(comparison, chosen)))
        return
    medians = []
    for lora in chosen.ranks:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen.only}
        for number in range(chosen.rounds):
            first = number % len(chosen.only)
            for name in chosen.only[first:] + chosen.only[:first]:
                found[name].append(one := _measured(comparison.module, name, lora, chosen))
                print(f"round {number + 1}, rank {lora}: {name}", comparison.line(one), flush=True)
        for name, rounds in found.items():
            median = sorted(rounds, key=lambda one: one["cpu"])[len(rounds) // 2]
            medians.append(f"rank {lora}, median: {name} {comparison.line(median)}")
        medians.append(table(lora, found))
    print("\n".join(medians))


def table(lora: int, found: dict[str, list[dict[str, Any]]]) -> str:
    """Write medians as a Markdown table, with the ratio of speeds by processor time and of memory to each of TRL's."""
    medians = {name: sorted(rounds, key=lambda one: one["cpu"])[len(rounds) // 2] for name, rounds in found.items()}
    speeds = {name: one["tokens"] / one["cpu"] for name, one in medians.items()}
    peers = [name for name in medians if name.startswith("trl")]
    heads = [f"{kind} / {name}" for name in peers for kind in ("speed", "memory")]
    lines = [f"| {f'LoRA {lora}' if lora else 'full'} | tokens/s | tokens/s of CPU | peak MiB | {' | '.join(heads)} |"]
    lines.append(f"| --- |{' ---: |' * (3 + len(heads))}")
    for name, one in medians.items():
        values = [one["tokens"] / one["seconds"], speeds[name], one["memory"] / 2**20]
        ratios = [(speeds[name] / speeds[peer], one["memory"] / medians[peer]["memory"]) for peer in peers]
        shown = [f"{value:.0f}" for value in values] + [f"{ratio:.2f}" for pair in ratios for ratio in pair]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _measured_here(comparison: Comparison, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure in this process."""
    trial = Trial(Path(chosen.base), chosen.lora, chosen.threads, Clock(chosen.warmup, chosen.steps))
    more = comparison.raypath(trial) if chosen.child == "raypath" else comparison.trl(trial, chosen.child == "trl")
    return {**trial.clock.figures(), "losses": trial.losses, "memory": peak_memory(), **more}


def _measured(module: str, name: str, lora: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", module, "--child", name, "--lora", str(lora)]
    for option in ("base", "steps", "warmup", "threads"):
        command += [f"--{option}", str(getattr(chosen, option))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _options(comparison: Comparison) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {comparison.module}")
    parser.add_argument("--base", help="folder of a decoder; the sample base if it is not given")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=comparison.steps, help="steps timed, after the warm-up")
    parser.add_argument("--warmup", type=int, default=comparison.warmup)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    ranks = list(comparison.ranks)
    parser.add_argument("--ranks", nargs="+", type=int, default=ranks, help="ranks of LoRA; 0 trains in full")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--lora", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.base = chosen.base or str(base_folder(CHAT))
    return chosen
