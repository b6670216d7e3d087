"""Type aliases of arrays and batches; importing this module does not import numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
"""A numpy array; its shape and dtype are given in the docstring of the function that takes or returns it."""
Batch: TypeAlias = dict[str, Any]
"""Tensors by name, such as `input_ids`, `attention_mask` and `targets`."""
