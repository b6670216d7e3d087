"""precision.json in a model folder: the chosen precision, the machine it was measured on, and the measurements."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.files import file_digest, write_atomically
from raypath.components.inference.backends.loader import CPU_ONLY, Precision, missing_package
from raypath.components.inference.backends.openvino_runtime import FILES
from raypath.components.models.bf16 import is_disabled

PRECISION = "precision.json"
Removed = Literal["int8", "onnx", "onnx-int8"]
"""Precisions of earlier releases, which versions in the registry may name."""
_log = logging.getLogger(__name__)
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
    openvino: str = ""

    def is_like(self, other: Machine) -> bool:
        """Return True if measurements are comparable; threads and versions may differ."""
        return (self.device, self.architecture, self.flags) == (other.device, other.architecture, other.flags)


class Candidate(BaseModel):
    """Measurement of one precision. `left_out` is the reason if it was not measured."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    precision: Precision | Removed
    left_out: str = ""
    rows_per_second: float = 0.0
    """Median of the rounds, in batches of 32 rows."""
    metrics: dict[str, float] = {}
    """Metrics on the validation split: the deciding one, and the log loss if the task has one."""
    difference: float = 0.0
    """Largest difference of the outputs (logits) from fp32's."""
    rows: int = 0
    """Rows of the metrics."""
    different: int = 0
    """Rows of them with another prediction than fp32's."""
    load_seconds: float = 0.0
    """Seconds until the first output, without imports."""


Table = tuple[Candidate, ...]


class Choice(BaseModel):
    """Contents of precision.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    precision: Precision | Removed
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
        found = importlib.metadata.version("openvino")
    return Machine(
        device=device,
        architecture=str(capabilities.get("architecture", "")),
        flags=tuple(name for name in FLAGS if capabilities.get(name)),
        threads=threads,
        torch=torch.__version__,
        openvino=found,
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
    """Return the precision of precision.json if it is usable on this machine, else None; the reason is logged.

    It is not usable on another device or, if it was measured, on a CPU with other features: it may be slow there, and
    int8 rounds differently. Nor if the environment disables bf16, if OpenVINO is not installed, if an earlier release
    wrote it, or if its files are missing or altered. The caller then uses the same weights in bf16 or fp32.
    """
    choice = read_choice(folder)
    if choice is None:
        return None
    if why := _unusable_reason(folder, choice, device):
        _log.warning("%s does not run in the precision that was chosen for it, %s: %s", folder, choice.precision, why)
        return None
    return choice.precision  # type: ignore[return-value]


def _unusable_reason(folder: Path, choice: Choice, device: str) -> str:
    if choice.precision in get_args(Removed):
        return "this release has no such backend; register it again to have it measured"
    if device != "cpu" and choice.precision in CPU_ONLY:
        return f"it is for the CPU, not {device}"
    if choice.precision == "bf16" and is_disabled():
        return "bf16 is disabled"
    if why := missing_package(choice.precision):
        return why
    if choice.table and not choice.machine.is_like(machine(device, 0)):
        return "it was measured on a CPU with other features"
    altered = [
        name for name in FILES.get(choice.precision, ()) if not _intact(folder / name, choice.files.get(name, ""))
    ]
    return f"{altered[0]} is missing or altered" if altered else ""


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest
