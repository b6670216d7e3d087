"""generation.json in a model folder: the chosen engine and precision, the machine of the measurement, and its table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.files import write_atomically
from raypath.components.inference.backends.precision_config import Machine

FILE = "generation.json"
Engine = Literal["fp32", "bf16", "openvino", "openvino-int8", "vllm"]
"""transformers in fp32 or bf16, openvino-genai in bf16 (fp32 where the CPU has no bf16 matmuls), or with int8 weights,
vLLM in bf16 (fp32 where the device has no bf16 matmuls). The first four are those of the precisions of classifiers."""
_log = logging.getLogger(__name__)


class EngineMeasurement(BaseModel):
    """Measurement of one engine. `left_out` is the reason if it was not measured."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: Engine
    left_out: str = ""
    alone: float = 0.0
    """Tokens a second of one request."""
    together: float = 0.0
    """Tokens a second of `REQUESTS` requests at a time."""
    perplexity: float = 0.0
    """Of the responses of the validation split."""
    agreement: float = 0.0
    """Share of the tokens that transformers generates which this engine chooses too, after the same tokens."""
    load_seconds: float = 0.0


class EngineChoice(BaseModel):
    """Contents of generation.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: Engine
    tolerance: float = 0.0
    """Allowed relative rise of the perplexity."""
    machine: Machine
    table: tuple[EngineMeasurement, ...] = ()
    """Empty if the engine was set, not measured."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of the chosen engine with `REQUESTS` requests at a time; 0 if it was not measured."""
        return next((line.together for line in self.table if line.engine == self.engine), 0.0)


class Opening(NamedTuple):
    """Name of an engine, and the precision that it opens a model in."""

    name: Literal["transformers", "openvino-genai", "vllm"]
    precision: Literal["fp32", "bf16", "int8"]


def opening_of(engine: Engine, bf16: bool) -> Opening:
    """Return how an engine is opened. bf16: the machine has bf16 matmuls."""
    precision: Literal["bf16", "fp32"] = "bf16" if bf16 else "fp32"
    if engine == "vllm":
        return Opening("vllm", precision)
    if engine == "openvino":
        return Opening("openvino-genai", precision)
    return Opening("openvino-genai", "int8") if engine == "openvino-int8" else Opening("transformers", engine)


def read_engine_choice(folder: Path) -> EngineChoice | None:
    """Read the choice of a model folder; None if it has none, or one that is not readable."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return EngineChoice.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        _log.warning("%s is ignored (%s)", path, str(error).splitlines()[0])
        return None


def write_engine_choice(folder: Path, choice: EngineChoice) -> None:
    """Write the choice atomically."""
    write_atomically(folder / FILE, choice.model_dump_json(indent=2) + "\n")
