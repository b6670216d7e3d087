"""Settings of training: all for `finetune`, most for `pretrain`; `tune` searches over some.

Settings that are "auto" are chosen from the data (`components/configuration`); `ResolvedParams` has a value for each.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raypath.components.core.params import Auto, Fraction, NonNegative, Params, Positive, Seconds, Source, Tokens
from raypath.components.models.base_models import DEFAULT_BASE
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.training.differential_privacy.params import PrivacyParams

Rate = Annotated[float, Field(gt=0, le=1)]
Layers = Annotated[int, Field(ge=-1)]


class TrainingParams(Params):
    """Settings common to `finetune` and `pretrain`."""

    base: Source | None = None
    """The base model: a folder, package://PACKAGE/PATH or hf://NAME[@REVISION]."""
    epochs: Positive | Auto = "auto"
    """Passes over the training split, at most; auto follows the number of rows and `minutes`."""
    lr: Rate | Auto = "auto"
    """Peak learning rate of the encoder; `tune` may replace it. auto follows the width of the encoder."""
    head_factor: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """The new head learns this many times faster than the encoder."""
    warmup: Fraction | Auto = "auto"
    """Share of the steps with linear warm-up; afterwards the learning rate decays linearly to 0."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """AdamW's decay of matrices, per unit of learning rate; biases and norms have none."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Maximum gradient norm; larger gradients are scaled down."""
    batch_tokens: Tokens | Auto = "auto"
    """Tokens per step over all workers, including padding: more workers take the same steps in less time. auto follows
    the number of rows and their lengths."""
    micro_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens per micro-batch of a worker; larger steps accumulate gradients over several. 0 disables micro-batches."""
    dropout: Fraction | None = 0.0
    """Replaces the base model's dropout; none keeps it. 0 is fastest, and enough for a few epochs."""
    frozen_layers: Layers | Auto = "auto"
    """Lowest encoder layers that stay frozen, together with the embeddings: 0 freezes only the embeddings, -1 nothing.
    Fewer trained layers are faster; auto takes 0, and more only to fit `minutes`."""
    metric: str | None = None
    """Metric on the validation split that selects the best weights; none uses the task's default."""
    patience: NonNegative | Auto = "auto"
    """Validation passes without a better metric after which training stops; 0 never stops early."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two validation passes; 0 validates once an epoch."""
    checkpoint_seconds: Seconds = 30.0
    """Seconds between two checkpoints: the most work that a crash can cost."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto uses bf16 on machines with bfloat16 matmul."""
    workers: Positive = 1
    """Processes that train together, each on its own cores or GPU."""
    max_workers: NonNegative = 0
    """Elastic training: between `workers` and this many, as the cluster has capacity; 0 keeps `workers`."""
    shard: bool = False
    """Shard the model over the workers (FSDP2), for one that does not fit one device."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a worker; 0 shares the machine's cores evenly."""
    memory: Literal["auto", "full"] = "auto"
    """auto estimates the memory of a step and, if it does not fit, uses micro-batches, activation checkpointing, LoRA
    adapters or a base in 4 bits, and reports it; full keeps the settings as they are."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: one more forward pass a step, far less memory."""
    lora: NonNegative = 0
    """Rank of LoRA adapters, trained instead of the model's matrices (extra `lora`); 0 disables them."""
    lora_alpha: NonNegative = 0
    """Scale of the adapters: their product is multiplied by lora_alpha / lora; 0 takes twice the rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the adapters' inputs."""
    dora: bool = False
    """Train magnitude and direction of adapted matrices separately (DoRA); slower than LoRA."""
    rslora: bool = False
    """Divide lora_alpha by the square root of the rank instead of the rank (rsLoRA), for high ranks."""
    load_in_4bit: bool = False
    """Keep the base's matrices in 4 bits under the adapters (QLoRA, NF4 with double quantization; extra `qlora`), for
    a base that does not fit otherwise. Adapters are merged into the base as it is stored."""
    profile: NonNegative = 0
    """Steps to profile with PyTorch's profiler; the trace and a table are logged to MLflow."""

    def threads_of(self, cores: int, workers: int) -> int:
        """CPU threads of each of `workers` processes on `cores` cores."""
        return self.threads or max(1, cores // workers)


Method = Literal["full", "head", "linear_probe", "contrastive"]
FITTED = frozenset({"linear_probe", "contrastive"})
"""Methods that end with a head fitted to features (`few_shot/fitted_head.py`)."""
CONTRASTIVE_PASSES = 20
"""Passes over the rows in an epoch of contrastive: a row has other partners in each."""


class FinetuneParams(TrainingParams):
    """Settings of `finetune`."""

    base: Source = "auto"
    """The base model: a folder, package://PACKAGE/PATH or hf://NAME[@REVISION]; auto takes one that fits the texts."""
    task: str = "text_classification"
    """Task of the model: a name in components/tasks, or package.module:Class of your own."""
    method: Method | Auto = "auto"
    """full trains the model above `frozen_layers`; head trains only the head, on features that `extract` computed. For
    few rows a class: linear_probe fits a logistic regression to the mean state of the frozen encoder, and contrastive
    does so after training the encoder on pairs of rows, twenty passes an epoch. auto follows the number of rows, and
    `minutes`."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Budget of training time in minutes, by which settings that are auto are chosen; none trains until the validation
    metric stops rising. It does not interrupt training."""
    objective: ObjectiveParams = ObjectiveParams()
    privacy: PrivacyParams = PrivacyParams()


class ResolvedParams(FinetuneParams):
    """Settings of a training with a value for each that may be "auto"; the training loop takes them."""

    epochs: Positive = 2
    lr: Rate = 1e-4
    warmup: Fraction = 0.1
    batch_tokens: Tokens = 2048
    frozen_layers: Layers = 0
    patience: NonNegative = 2
    base: Source = DEFAULT_BASE
    method: Method = "full"
