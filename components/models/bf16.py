"""Whether a model computes in bfloat16 where nobody says otherwise: training and service decide it alike."""

from __future__ import annotations

import os
from pathlib import Path

FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What CPUINFO says of a processor that multiplies matrices in it: x86 by AVX512 or AMX, Arm."""


CPUINFO = Path("/proc/cpuinfo")


def supports_bf16(device: str = "") -> bool:
    """Whether the device (cpu, cuda; "": the GPU where there is one) multiplies matrices in bfloat16.

    Elsewhere it would be slower than float32. `RAYPATH_PRECISION=fp32` says no everywhere, for figures that depend less
    on the machine.
    """
    if os.environ.get("RAYPATH_PRECISION") == "fp32":
        return False
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not FLAGS.isdisjoint(_cpu_flags())


def uses_bf16(precision: str) -> bool:
    """Whether training with the setting `precision`, auto, fp32 or bf16, computes in bfloat16 here."""
    return precision == "bf16" or (precision == "auto" and supports_bf16())


def _cpu_flags() -> list[str]:
    """Of the first processor; [] where the kernel does not tell."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    told = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return next(told, "").split()
