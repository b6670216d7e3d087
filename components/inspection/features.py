"""Features of texts by a frozen base model: mean pooling of the last hidden states, normalized to length one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.data.tokenization.tokenizer import TextTokenizer, model_max_length
from raypath.components.inspection.rows import Part, Places, tables_of

MAX_LENGTH = 128
_TOKENS = {"cpu": 4_096, "cuda": 65_536}


def texts_at(parts: Iterable[Part], rows: Array) -> list[str]:
    """Read the texts of some rows, by their sorted positions."""
    found: list[str] = []
    for _, position, table in tables_of(parts, Places()):
        first, last = np.searchsorted(rows, [position, position + table.num_rows])
        if last > first:
            found += table["text"].take(pa.array(rows[first:last] - position)).to_pylist()
    return found


def features(folder: Path, texts: list[str], threads: int = 0) -> Array:
    """Return features, float32 [N, H]. Raises DataError for a base that does not open."""
    import torch

    from raypath.components.models.base_models import build_model
    from raypath.components.models.bf16 import uses_bf16
    from raypath.components.models.process import configure_process

    configure_process(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model("AutoModel", str(folder), ("0", "1"), 0.0).to(device).eval()
    length = min(MAX_LENGTH, model_max_length(folder) or MAX_LENGTH)
    ids = TextTokenizer(folder, length).encode(texts)
    found = np.empty((len(ids), int(model.config.hidden_size)), np.float32)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=uses_bf16("auto")):
        for group in _groups([len(row) for row in ids], _TOKENS[device]):
            found[group] = _pooled(model, [ids[n] for n in group], device)
    return found


def _groups(lengths: list[int], budget: int) -> Iterable[list[int]]:
    """Group rows of similar length, at most `budget` tokens each with padding, of few widths."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    group: list[int] = []
    for row in order:
        if group and (len(group) + 1) * _width(lengths[row]) > budget:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _width(length: int) -> int:
    return -(-max(length, 1) // 16) * 16


def _pooled(model: Any, rows: list[list[int]], device: str) -> Array:
    import torch

    width = _width(max(map(len, rows)))
    pad = int(getattr(model.config, "pad_token_id", None) or 0)
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # [B, L, H]
    mean = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    pooled: Array = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
    return pooled
