"""The contenders: each trains the model of a Spec, tells a clock of every step, and returns the trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from raypath.components.models.bf16 import supports_bf16
from raypath.components.training.loop.optimizer import groups
from raypath.components.training.params import ResolvedParams
from tests.bench import ours
from tests.bench.clock import Clock, Stamps
from tests.bench.reviews import Spec


def best(spec: Spec) -> dict[str, Any]:
    """What somebody who knows it well sets for the Trainer."""
    own = {"use_cpu": True, "dataloader_pin_memory": False}  # without use_cpu, it refuses bf16 on a CPU
    return {
        "bf16": supports_bf16(spec.device),
        "train_sampling_strategy": "group_by_length",
        "disable_tqdm": True,
        **(own if spec.device == "cpu" else {"dataloader_num_workers": 2}),
    }


def trainer(spec: Spec, clock: Clock, **settings: Any) -> Any:
    """Hugging Face's Trainer: its own defaults, `settings`, and batch, learning rate, epochs and seed of `spec`."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from raypath.components.models.base_models import base_folder

    class Watched(Trainer):
        def training_step(self, model: Any, inputs: Any, *more: Any) -> Any:
            self.lengths = inputs["attention_mask"].sum(1)
            return super().training_step(model, inputs, *more)

    class Notes(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(watched.lengths if spec.device == "cpu" else _Later(watched.lengths))

    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)  # the new head is drawn before the Trainer sets its seed
    folder = base_folder(spec.base)
    watched = Watched(
        model=AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(spec.train.labels)),
        args=TrainingArguments(
            output_dir=f"{spec.folder}/trainer",
            per_device_train_batch_size=spec.batch,
            learning_rate=spec.lr,
            num_train_epochs=spec.epochs,
            seed=spec.seed,
            **settings,
        ),
        train_dataset=_examples(spec),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder)),
        callbacks=[Notes()],
    )
    watched.train()
    return watched.model


class _Later:
    """Lengths that lie on the GPU until they are asked for: to fetch them in each step would hold the Trainer up."""

    def __init__(self, lengths: torch.Tensor) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.lengths.cpu().numpy()


def _examples(spec: Spec) -> list[dict[str, Any]]:
    rows = ours.rows_of(spec, "train")
    pieces = [rows.ids[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
    return [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(target)}
        for ids, target in zip(pieces, rows.targets, strict=True)
    ]


def bare(spec: Spec, clock: Clock, build: Callable[[Spec, ResolvedParams], Any] = ours.model_of) -> Any:
    """A plain loop over the very steps that `finetune` takes, with its model, optimizer, clipping and schedule.

    No checkpoints, no figures, batches made beforehand: what the hardware gives for this recipe.
    """
    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)
    params = ours.params_of(spec, shipped=False)
    task, model, steps = ours.task_of(spec, params), build(spec, params), ours.steps_of(spec, params)
    optimizer = torch.optim.AdamW(groups(model, params), lr=params.lr, fused=True)
    rows = ours.rows_of(spec, "train")
    pad = int(model.config.pad_token_id or 0)
    batches = [{k: v.to(spec.device) for k, v in rows.batch(chosen, pad).items()} for chosen in steps]
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _scale(step, len(steps), params)
        with torch.autocast(spec.device, torch.bfloat16, enabled=supports_bf16(spec.device)):
            loss = task.loss(task.forward(model, batch), batch) / len(steps[step])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), params.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step(rows.lengths[steps[step]])
    return model


def _scale(step: int, steps: int, params: ResolvedParams) -> float:
    warm = max(1, round(params.warmup * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm + 1))


def raypath(spec: Spec, clock: Clock, shipped: bool = False) -> Any:
    """The component `finetune` itself, as a workflow calls it. shipped: the settings of text_classification."""
    from transformers import AutoModelForSequenceClassification

    from raypath.components.finetune import finetune

    params = ours.params_of(spec, shipped)
    lengths = ours.rows_of(spec, "train").lengths
    stamps = Stamps(clock, [lengths[chosen] for chosen in ours.steps_of(spec, params)])
    ctx = replace(spec.context("finetune"), track=stamps)
    finetune.fn(ctx, spec.train, spec.valid, None, params)
    return AutoModelForSequenceClassification.from_pretrained(ctx.out)


CONTENDERS: dict[str, Callable[[Spec, Clock], Any]] = {
    "trainer": trainer,
    "trainer-best": lambda spec, clock: trainer(spec, clock, **best(spec)),
    "bare": bare,
    "bare-plain": partial(bare, build=ours.plain_model_of),
    "raypath": raypath,
    "raypath-default": partial(raypath, shipped=True),
}


def model_of(name: str, spec: Spec) -> Any:
    """A model that computes what a contender's does, for counting."""
    params = ours.params_of(spec, shipped=name == "raypath-default")
    whole = name.startswith("trainer") or name == "bare-plain"
    model = ours.plain_model_of(spec, params) if whole else ours.model_of(spec, params)
    return model.cpu()


def in_bf16(name: str, spec: Spec) -> bool:
    """Whether a contender multiplies matrices in bfloat16 on this device."""
    return name != "trainer" and supports_bf16(spec.device)
