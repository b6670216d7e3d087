"""precision.json in a version's model folder: in which precision it answers, where that was measured, and the table."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.files import file_digest, write_atomically
from raypath.components.inference.backends.loader import CPU_ONLY, Precision, has_torch_int8
from raypath.components.inference.backends.onnx_runtime import FILES

PRECISION = "precision.json"
FLAGS = ("avx2", "avx512_f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "neon", "i8mm", "bf16")
"""What a CPU has that decides how fast, and how exactly, it multiplies small numbers."""


class Machine(BaseModel):
    """Where figures were taken."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device: str
    architecture: str
    flags: tuple[str, ...]
    threads: int
    torch: str
    onnxruntime: str = ""

    def like(self, other: Machine) -> bool:
        """Whether what was measured there holds here; threads and versions may differ."""
        return (self.device, self.architecture, self.flags) == (other.device, other.architecture, other.flags)


class Candidate(BaseModel):
    """One line of the table. rows_per_second 0: left out, and `left_out` says why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    precision: Precision
    left_out: str = ""
    rows_per_second: float = 0.0
    """Median of the rounds, 32 rows at a time."""
    metrics: dict[str, float] = {}
    """On rows of the validation part: the one that decides, and the log loss where the task has one."""
    difference: float = 0.0
    """Largest difference of what the task records (logits) from fp32's."""
    load_seconds: float = 0.0
    """Until the first answer; without the imports."""


Table = tuple[Candidate, ...]


class Choice(BaseModel):
    """The contents of precision.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    precision: Precision
    tolerance: float = 0.0
    metric: str = ""
    machine: Machine
    files: dict[str, str] = {}
    """SHA-256 of the files that this precision needs beside the weights."""
    table: Table = ()
    """Empty when the precision was given, not measured."""

    @property
    def rows_per_second(self) -> float:
        """Of the chosen one; 0 when it was not measured."""
        return next((line.rows_per_second for line in self.table if line.precision == self.precision), 0.0)


def machine(device: str, threads: int) -> Machine:
    """This machine."""
    import torch

    can = torch.cpu.get_capabilities()
    found = ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.version("onnxruntime")
    return Machine(
        device=device,
        architecture=str(can.get("architecture", "")),
        flags=tuple(name for name in FLAGS if can.get(name)),
        threads=threads,
        torch=torch.__version__,
        onnxruntime=found,
    )


def write_choice(folder: Path, choice: Choice) -> None:
    """Write precision.json into a model folder."""
    write_atomically(folder / PRECISION, choice.model_dump_json(indent=2) + "\n")


def read_choice(folder: Path) -> Choice | None:
    """What precision.json says; None when there is none, or none that can be read."""
    try:
        return Choice.model_validate_json((folder / PRECISION).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def usable_precision(folder: Path, device: str) -> Precision | None:
    """The precision of precision.json where it can be relied on here, else None.

    It is not on another device, nor, where it was measured, on a CPU with other flags: the fastest there may be slow
    here, and int8 rounds otherwise. Nor when PyTorch has no int8 any more, ONNX Runtime is not installed, or its file
    is missing or not the one that was registered. The caller then takes what needs nothing: bf16 where the CPU has it,
    else fp32, from the same weights.
    """
    choice = read_choice(folder)
    if choice is None or (device != "cpu" and choice.precision in CPU_ONLY):
        return None
    if choice.precision == "int8" and not has_torch_int8():
        return None
    here = machine(device, 0)
    if choice.table and not choice.machine.like(here):
        return None
    name = FILES.get(choice.precision)
    if name and not (here.onnxruntime and _whole(folder / name, choice.files.get(name, ""))):
        return None
    return choice.precision


def _whole(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest
