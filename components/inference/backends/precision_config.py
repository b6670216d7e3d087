"""precision.json in a model folder: the chosen precision, the machine it was measured on, and the measurements."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.files import file_digest, write_atomically
from raypath.components.inference.backends.loader import CPU_ONLY, Precision, has_torch_int8
from raypath.components.inference.backends.onnx_runtime import FILES
from raypath.components.models.bf16 import is_disabled

PRECISION = "precision.json"
FLAGS = ("avx2", "avx512_f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "neon", "i8mm", "bf16")
"""CPU features that determine speed and rounding of low-precision matmuls."""


class Machine(BaseModel):
    """Machine of a measurement."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device: str
    architecture: str
    flags: tuple[str, ...]
    threads: int
    torch: str
    onnxruntime: str = ""

    def is_like(self, other: Machine) -> bool:
        """Return True if measurements are comparable; threads and versions may differ."""
        return (self.device, self.architecture, self.flags) == (other.device, other.architecture, other.flags)


class Candidate(BaseModel):
    """Measurement of one precision. `left_out` is the reason if it was not measured."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    precision: Precision
    left_out: str = ""
    rows_per_second: float = 0.0
    """Median of the rounds, in batches of 32 rows."""
    metrics: dict[str, float] = {}
    """Metrics on the validation split: the deciding one, and the log loss if the task has one."""
    difference: float = 0.0
    """Largest difference of the outputs (logits) from fp32's."""
    load_seconds: float = 0.0
    """Seconds until the first output, without imports."""


Table = tuple[Candidate, ...]


class Choice(BaseModel):
    """Contents of precision.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    precision: Precision
    tolerance: float = 0.0
    metric: str = ""
    machine: Machine
    files: dict[str, str] = {}
    """SHA-256 of the additional files of this precision."""
    table: Table = ()
    """Empty if the precision was set, not measured."""

    @property
    def rows_per_second(self) -> float:
        """Speed of the chosen precision; 0 if it was not measured."""
        return next((line.rows_per_second for line in self.table if line.precision == self.precision), 0.0)


def machine(device: str, threads: int) -> Machine:
    """Describe this machine."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    found = ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.version("onnxruntime")
    return Machine(
        device=device,
        architecture=str(capabilities.get("architecture", "")),
        flags=tuple(name for name in FLAGS if capabilities.get(name)),
        threads=threads,
        torch=torch.__version__,
        onnxruntime=found,
    )


def write_choice(folder: Path, choice: Choice) -> None:
    """Write precision.json into a model folder."""
    write_atomically(folder / PRECISION, choice.model_dump_json(indent=2) + "\n")


def read_choice(folder: Path) -> Choice | None:
    """Read precision.json; None if it is missing or unreadable."""
    try:
        return Choice.model_validate_json((folder / PRECISION).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def usable_precision(folder: Path, device: str) -> Precision | None:
    """Return the precision of precision.json if it is usable on this machine, else None.

    It is not usable on another device or, if it was measured, on a CPU with other features: it may be slow there, and
    int8 rounds differently. Nor if the environment disables bf16, if PyTorch lacks int8, ONNX Runtime is not installed,
    or the model file is missing or altered. The caller then uses the same weights in bf16 or fp32.
    """
    choice = read_choice(folder)
    if choice is None or (device != "cpu" and choice.precision in CPU_ONLY):
        return None
    if choice.precision == "bf16" and is_disabled():
        return None
    if choice.precision == "int8" and not has_torch_int8():
        return None
    here = machine(device, 0)
    if choice.table and not choice.machine.is_like(here):
        return None
    name = FILES.get(choice.precision)
    if name and not (here.onnxruntime and _intact(folder / name, choice.files.get(name, ""))):
        return None
    return choice.precision


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest
