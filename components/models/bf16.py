"""Default precision: bfloat16 where the hardware has bfloat16 matmul, in training and inference alike."""

from __future__ import annotations

import os
from pathlib import Path

from raypath.components.core.errors import ParamsError

FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags in CPUINFO that stand for bfloat16 matmul: x86 with AVX512 or AMX, Arm."""

CPUINFO = Path("/proc/cpuinfo")
VARIABLE, FP32 = "RAYPATH_PRECISION", "fp32"
"""Variable of the environment, and its value that disables bfloat16; passed to every step and replica."""


def is_disabled() -> bool:
    """Return True if the environment disables bfloat16."""
    return os.environ.get(VARIABLE) == FP32


def passed_environment() -> dict[str, str]:
    """Return the variable if it is set, for processes that do not inherit it, such as those on other machines."""
    return {VARIABLE: os.environ[VARIABLE]} if os.environ.get(VARIABLE) else {}


def check_environment() -> None:
    """Raise ParamsError for another value of the variable, which would disable nothing."""
    if (value := os.environ.get(VARIABLE, "")) not in ("", FP32):
        raise ParamsError(
            f"{VARIABLE} is {value[:40]!r}; wanted {FP32} or nothing", fix=f"set {VARIABLE}={FP32}, or unset it"
        )


def supports_bf16(device: str = "") -> bool:
    """Return True if the device (cpu, cuda; empty: the GPU if there is one) has bfloat16 matmul.

    Emulated bfloat16 would be slower than float32. `RAYPATH_PRECISION=fp32` disables bfloat16 everywhere, for results
    that depend less on the machine.
    """
    if is_disabled():
        return False
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not FLAGS.isdisjoint(_cpu_flags())


def uses_bf16(precision: str) -> bool:
    """Return True if training with the setting `precision` (auto, fp32, bf16) uses bfloat16 here."""
    return precision == "bf16" or (precision == "auto" and supports_bf16())


def _cpu_flags() -> list[str]:
    """Read the flags of the first processor; [] if the kernel does not list them."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return next(flags, "").split()
