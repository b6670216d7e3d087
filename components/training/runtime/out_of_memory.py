"""Out of memory in a training: one line with the settings that take less. Trying again would fail the same way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from raypath.components.core.errors import DataError
from raypath.components.training.batches.token_dataset import longest_row
from raypath.components.training.job import TrainingJob
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime.memory import GIB, LEAST_TOKENS, MemoryPlan, free_bytes

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "ALLOC_FAILED", "out_of_memory")
"""Parts of messages of PyTorch's allocators, C++, cuBLAS and oneDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an allocation failed, on the CPU or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def explained_start(job: TrainingJob) -> contextlib.AbstractContextManager[None]:
    """Raise DataError where the model does not fit as it is opened."""
    fix = "use a smaller base, or set finetune.shard=true on more workers"
    if job.task.adapters_alone and not job.params.load_in_4bit:
        fix += ", or finetune.load_in_4bit=true and finetune.lora=16"
    return _explained(f"when {job.folder} was opened", lambda: fix)


def explained_step(
    job: TrainingJob, plan: MemoryPlan, epoch: int, step: int
) -> contextlib.AbstractContextManager[None]:
    """Raise DataError where a step does not fit."""
    where = f"at epoch {epoch + 1}, step {step + 1}, with {plan.micro_tokens} tokens a micro-batch"
    return _explained(where, lambda: remedies(job.params, plan, longest_row(job.train), job.task.adapters_alone))


@contextlib.contextmanager
def _explained(where: str, fix: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free = f"{free_bytes() / GIB:.1f} GiB of the {'GPU' if torch.cuda.is_available() else 'machine'}'s memory"
        raise DataError(f"out of memory {where}; {free} are free now", fix=fix()) from None


def remedies(params: ResolvedParams, plan: MemoryPlan, longest: int, adapters_alone: bool) -> str:
    """List the settings that take less memory than those of a training, those that change least first.

    longest: tokens of the longest row; adapters_alone: the task may train on a base in 4 bits.
    """
    found = []
    half = max(longest, plan.micro_tokens // 2, LEAST_TOKENS)
    if half < plan.micro_tokens:
        found.append(f"finetune.micro_tokens={half}, which gives the same result")
    if not plan.checkpointing:
        found.append("finetune.gradient_checkpointing=true")
    if not plan.lora:
        found.append("finetune.lora=16")
    if adapters_alone and not plan.load_in_4bit and not params.shard:
        found.append("finetune.load_in_4bit=true")
    if not found:
        return "use a smaller base, a lower preprocess.max_length, or more workers with finetune.shard=true"
    return f"set {found[0]}" if len(found) == 1 else f"set one of {'; '.join(found)}"
