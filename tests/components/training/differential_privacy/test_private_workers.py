"""Private training by several Ray Train workers: the epsilon and the model of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components import Context, Dataset
from raypath.components.finetune import finetune
from raypath.components.models.metadata import PrivacyRecord, read_metadata
from raypath.components.training.differential_privacy.accountant import epsilon_of
from raypath.components.training.differential_privacy.secret_random import FILE, KEY_BYTES
from raypath.components.training.params import FinetuneParams

KEY = bytes(range(KEY_BYTES)).hex()
PRIVACY = {"privacy.noise_multiplier": 1.0, "privacy.batch_rows": 32, "lora": 2, "epochs": 3, "lr": 1e-3, "threads": 1}
Trained = tuple[dict[str, torch.Tensor], PrivacyRecord]


def _finetune(ctx: Context, base: Path, parts: tuple[Dataset, Dataset], workers: int) -> Trained:
    """Train with the key of this module; return the model's weights and its record."""
    from safetensors.torch import load_file

    (ctx.scratch / FILE).write_text(KEY)
    params = FinetuneParams(base=str(base), precision="fp32")
    finetune.fn(ctx, *parts, None, params.override({**PRIVACY, "workers": workers}))
    record = read_metadata(ctx.out).privacy
    assert record is not None
    return load_file(ctx.out / "model.safetensors"), record


@pytest.mark.slow
def test_two_workers_train_the_model_of_one_for_the_same_epsilon(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Callable[..., Context], ray_head: None, tmp_path: Path
) -> None:
    """With noise that is added by each worker, the model of two would differ from that of one by more than a step."""
    fields: dict[str, Any] = {"signing": tmp_path / "home" / "signing"}
    alone, of_one = _finetune(make_context("finetune", **fields), base, parts, 1)
    two, of_two = _finetune(make_context("finetune", **fields), base, parts, 2)
    # One key is one training, which is counted once.
    assert of_two == of_one
    assert (of_two.data_trainings, of_two.units) == (1, parts[0].rows)
    assert of_two.epsilon == epsilon_of(of_two.events, of_two.delta)
    for name, weight in alone.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)
