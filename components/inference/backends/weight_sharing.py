"""Weight sharing between models of one process: equal weights are kept in memory once.

Equal weights are found by their SHA-256: encoders below several heads, frozen layers, a canary next to its champion.
Outputs stay bit-identical. The table holds weak references, so a weight is freed with the last model that uses it.
Nothing may write to a weight once its model is open.

Between processes of a machine, float32 weights on the CPU are shared by the operating system, since safetensors maps
the file into memory. bf16 is computed from it, and OpenVINO reorders its weights, so each process has its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

Key = tuple[Any, ...]


class WeightTable:
    """Weights of the models of one owner, such as a replica, by content."""

    def __init__(self) -> None:
        self._weights: WeakValueDictionary[Key, Any] = WeakValueDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._weights)

    def get_or_create(self, key: Key, create: Callable[[], Any]) -> Any:
        """Return the weight under a key, created if there is none."""
        with self._lock:
            found = self._weights.get(key)
            if found is None:
                found = self._weights[key] = create()
            return found

    def share(self, model: Any, digests: dict[str, str]) -> None:
        """Replace the parameters of a new model by equal ones in the table, and add the others to it."""
        with self._lock:
            for name, content in digests.items():
                parent, _, last = name.rpartition(".")
                parameters = model.get_submodule(parent)._parameters
                own = parameters[last]
                key = content, own.dtype, tuple(own.shape), own.device
                parameters[last] = self._weights.setdefault(key, own)


def weight_digests(model: Any) -> dict[str, str]:
    """Return name -> SHA-256 of each parameter; 90 MB take 0.1 s."""
    return {name: _digest(weight) for name, weight in model.named_parameters(remove_duplicate=False)}


def trim_memory() -> None:
    """Return freed memory to the operating system, which glibc would keep for later."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _digest(weight: Any) -> str:
    import torch

    return hashlib.sha256(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()).hexdigest()
