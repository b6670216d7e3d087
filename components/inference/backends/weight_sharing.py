"""Weights that several models of one process have in common, held once.

Weights that are the same bit for bit are found by their SHA-256: below heads on one encoder, in frozen layers, in a
canary beside its champion. Answers do not change by a bit. A weight goes with the last model that uses it: the table
here holds none by itself. Nothing writes to a weight once its model is open.

Between the processes of a machine, float32 on the CPU is shared by the system: safetensors maps the file, so that
replicas read the same pages. Other precisions are computed from it, and each process holds its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

Key = tuple[Any, ...]
_held: WeakValueDictionary[Key, Any] = WeakValueDictionary()
"""By content: parameters, and layers of int8."""
_one = threading.Lock()


def digests(model: Any) -> dict[str, str]:
    """Name of each parameter -> SHA-256 of its bytes; 90 MB take 0.1 s."""
    return {name: _digest(weight) for name, weight in model.named_parameters(remove_duplicate=False)}


def held(key: Key, make: Callable[[], Any]) -> Any:
    """What the table holds under a key; what `make` returns where it holds nothing, and from then on that."""
    with _one:
        found = _held.get(key)
        if found is None:
            found = _held[key] = make()
        return found


def share(model: Any, known: dict[str, str]) -> None:
    """Let a model that was just opened use what others hold, and offer them what it brings. known: its `digests`."""
    with _one:
        for name, content in known.items():
            above, _, last = name.rpartition(".")
            parameters = model.get_submodule(above)._parameters
            mine = parameters[last]
            parameters[last] = _held.setdefault((content, mine.dtype, tuple(mine.shape), mine.device), mine)


def share_int8(model: Any, known: dict[str, str]) -> None:
    """The same for the encoder's int8 layers: before quantising, those that others made of the same weights are put
    in; after it, the new ones are offered. A layer is shared whole, since it keeps nothing between two calls.

    known: the model's `digests` in float32.
    """
    from torch import nn
    from torch.ao.nn.quantized.dynamic import Linear

    prefix = model.base_model_prefix
    with _one:
        for name, layer in list(model.base_model.named_modules(prefix=prefix)):
            key = "int8", known.get(f"{name}.weight"), known.get(f"{name}.bias")
            if isinstance(layer, nn.Linear) and key in _held:
                above, _, last = name.rpartition(".")
                setattr(model.get_submodule(above), last, _held[key])
            elif isinstance(layer, Linear):
                _held.setdefault(key, layer)


def give_back() -> None:
    """Hand the memory of copies that were dropped back to the system; glibc would keep it for later."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _digest(weight: Any) -> str:
    import torch

    return hashlib.sha256(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()).hexdigest()
