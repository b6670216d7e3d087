"""Speed of a decoder's training: `python -m tests.bench.gpu.decoders.speed SHAPE DEVICE FOLDER WAY STEPS OUT`.

raypath: `finetune`'s own loop, with or without LoRA, on a base in 4 bits, or with compiled layers. trl: SFTTrainer with
packed rows, by flash attention if that is installed, and without recomputing.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from raypath.components.models.bf16 import supports_bf16
from raypath.components.models.process import configure_process
from raypath.components.training.loop.trainer import start_training
from tests.bench.clock import Clock, Enough, device_memory
from tests.bench.gpu.decoders.base import SHAPES, Shape, job_of, operations

WARMUP = 4
RANK = 16
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": RANK},
    "qlora": {"lora": RANK, "load_in_4bit": True},
    "full, compiled": {},
    "trl full": {},
    "trl lora": {"lora": RANK},
}
"""Settings of each way; those that matter most come first."""
NEEDS = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes"), "trl full": ("trl",), "trl lora": ("trl", "peft")}


def missing(way: str) -> list[str]:
    """Return the packages that a way needs and that are not installed."""
    return [name for name in NEEDS.get(way, ()) if find_spec(name) is None]


def measure(shape: Shape, device: str, folder: Path, way: str, steps: int) -> dict[str, Any]:
    """Train WARMUP steps, then time `steps`."""
    clock, losses = Clock(WARMUP, steps, device), list[float]()
    job = job_of(shape, folder, WARMUP + steps + 2, **WAYS[way])
    before = 0
    if way.startswith("trl"):
        _train_trl(shape, device, folder, job, clock, losses)
    else:
        before = _train_raypath(device, job, clock, losses, compiled=way.endswith("compiled"))
    found = clock.figures()
    lengths = [length for each in clock._lengths for length in each]
    return {
        **{name: found[name] for name in ("steps", "seconds", "rows", "tokens")},
        "operations": operations(shape, lengths) if way.startswith("full") else 0.0,
        "losses": [losses[0], losses[-1]],
        "memory": device_memory(),
        "recompilations": _graphs() - before,
    }


def _train_raypath(device: str, job: Any, clock: Clock, losses: list[float], compiled: bool) -> int:
    """Train as `finetune` does. Return the number of graphs that were compiled until the warm-up had ended."""
    training = start_training(job)
    if compiled:
        for layer in training.model.base_model.layers:
            # On a CPU the traced graph is run as it is: this form shows that it can be traced, not how fast it is.
            layer.compile(dynamic=True, backend="inductor" if device == "cuda" else "aot_eager")
    steps, lengths, graphs = training.epochs[0], job.train.lengths, [0]

    def on_step(step: int, _: int, metrics: dict[str, float]) -> None:
        losses.append(metrics["loss"])
        if step == WARMUP:
            graphs[0] = _graphs()
        clock.step(lengths[steps[step - 1]])

    job.on_step = on_step
    clock.pause()
    with contextlib.suppress(Enough):
        training.run()
    return graphs[0]


def _train_trl(shape: Shape, device: str, folder: Path, job: Any, clock: Clock, losses: list[float]) -> None:
    """Train with SFTTrainer on rows that it packs; a step has as many tokens."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    flash = device == "cuda" and find_spec("flash_attn") is not None
    rows = job.train
    places = [slice(start, end) for start, end in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
    masks = [rows.loss_mask[place].astype(int).tolist() for place in places]
    table = Dataset.from_dict({"input_ids": [rows.ids[place].tolist() for place in places], "completion_mask": masks})

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Time and losses. TRL counts the tokens of its steps, and not their rows."""

        seen = 0

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))
                clock.step([int(float(logs["num_tokens"])) - self.seen])
                self.seen = int(float(logs["num_tokens"]))

    adapters = None
    if rank := job.params.lora:
        adapters = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    attention = "flash_attention_2" if flash else "sdpa"
    with tempfile.TemporaryDirectory(prefix="raypath-trl-") as out:
        config = SFTConfig(
            output_dir=out,
            num_train_epochs=1,
            per_device_train_batch_size=max(1, shape.tokens // shape.longest),
            max_length=shape.longest,
            packing=True,
            completion_only_loss=True,
            gradient_checkpointing=False,
            bf16=supports_bf16(device),
            use_cpu=device == "cpu",
            learning_rate=job.params.lr,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=table,
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=adapters,
            callbacks=[Watch()],
        )
        clock.pause()
        with contextlib.suppress(Enough):
            trainer.train()


def _graphs() -> int:
    """Graphs that torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


if __name__ == "__main__":
    name, place, base, how, count, result = sys.argv[1:]
    configure_process(seed=0)
    made = measure(SHAPES[name], place, Path(base), how, int(count))
    Path(result).write_text(json.dumps(made), encoding="utf-8")
