"""Golden examples: recorded when a version is registered, checked before it serves requests.

examples.json in the version's folder has some made-up texts (never a row of the user's data), and the model's outputs
for them, in fp32 and in the chosen precision. The files themselves are checked by their signature (registry/signing).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raypath.components.core.errors import DataError
from raypath.components.core.files import write_atomically
from raypath.components.inference.backends.loader import CPU_ONLY

if TYPE_CHECKING:
    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.inference.engine import Engine

FILE = "examples.json"
TEXTS = (
    "A lovely cup of tea",
    "Arrived broken, and nobody answers",
    "?",
    "Es kam zu spät, schmeckt aber gut",
    "味道很好 👍",
    "The parcel was left at the door on Tuesday. " * 6,
)
EXACT, ROUGH = 0.01, 0.15
"""Tolerance relative to the largest output: for PyTorch, whose floating point differs slightly between processors, and
for OpenVINO or a precision that was not recorded."""
_FIX = "register the model again; the previous version stays in service"


def record(folder: Path, threads: int = 0) -> None:
    """Write examples.json into a model folder. Raises DataError for a folder that does not open."""
    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.inference.engine import Engine
    from raypath.components.models.metadata import read_metadata

    tokenizer = TextTokenizer(folder, read_metadata(folder).max_length)
    tokens = tokenizer.encode(list(TEXTS))
    outputs: dict[str, Any] = {}
    for precision in ("fp32", "auto"):
        engine = Engine(folder, threads, "cpu", precision=precision)
        if engine.precision not in outputs:
            outputs[engine.precision] = engine.record(tokens).tolist()
    write_atomically(folder / FILE, json.dumps({"texts": TEXTS, "outputs": outputs}))


def check_predictions(folder: Path, tokenizer: TextTokenizer, engine: Engine) -> None:
    """Raise DataError if the outputs differ from the recorded ones; without examples.json nothing is checked."""
    known = _read(folder)
    outputs = known.get("outputs", {})
    name = engine.precision if engine.precision in outputs else "fp32"
    if name not in outputs:
        return
    found, wanted = engine.record(tokenizer.encode(known["texts"])), np.asarray(outputs[name], dtype=np.float32)
    if found.shape != wanted.shape:
        raise DataError(f"it has {found.shape[1]} outputs; {wanted.shape[1]} were recorded", fix=_FIX)
    share = EXACT if name == engine.precision and name not in CPU_ONLY else ROUGH
    allowed = share * max(1.0, float(np.abs(wanted).max()))
    difference = np.abs(found - wanted).max(axis=1)  # [texts]
    worst = int(difference.argmax())
    if not bool(np.isfinite(found).all()) or difference[worst] > allowed:
        reason = (
            f"its output for example {worst + 1} is off by {difference[worst]:.3g}; at most {allowed:.2g} is allowed"
        )
        raise DataError(reason, fix=_FIX)


def _read(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise DataError(f"its {FILE} is corrupt", fix=_FIX) from None
    return found
