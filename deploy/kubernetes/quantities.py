"""Quantities of Kubernetes: the type of settings for memory, and conversions."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti)$")]
"""An amount of memory, such as 8Gi or 1.5Gi."""
_UNITS = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}


def parse(quantity: str) -> float:
    """The value of any quantity: 2, 500m, 8Gi."""
    digits = quantity.rstrip("mkKMGTi")
    return float(digits) * _UNITS.get(quantity.removeprefix(digits), 1.0)


def integral(quantity: str) -> str:
    """The same amount without a decimal point, which Kubeflow does not accept: 1536Mi for 1.5Gi."""
    if "." not in quantity:
        return quantity
    return f"{math.ceil(parse(quantity) / 2**20)}Mi"
