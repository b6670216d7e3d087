"""Constants and defaults of the library, in constants.json: names of files and tags, limits, defaults of arguments.

A change of one changes what is stored, sent or computed, and is meant. RAYPATH_UPDATE=1 writes the file anew.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from raypath.components.core.params import Params

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("constants.json")
FOLDERS = ("core", "evaluation", "models", "registry", "tasks", "tracking", "training", "tuning")
STEPS = ("evaluate", "finetune", "pretrain", "register", "tune")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / "components" / folder).rglob("*.py"))]
FILES += [ROOT / "components" / f"{step}.py" for step in STEPS]
NAMES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if path.name != "__init__.py"]
UNKNOWN = object()


def plain(value: Any) -> Any:
    """Return a value as JSON has it; UNKNOWN for what is no constant."""
    if value is None or isinstance(value, bool | int | float | str):
        return value if not isinstance(value, float) or np.isfinite(value) else str(value)
    if isinstance(value, re.Pattern | Path | bytes):
        return str(getattr(value, "pattern", value))
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, tuple | list):
        found = [plain(each) for each in value]
        return UNKNOWN if UNKNOWN in found else found
    if isinstance(value, dict):
        found = {str(key): plain(each) for key, each in value.items()}
        return UNKNOWN if UNKNOWN in found.values() else found
    return UNKNOWN


def constants(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield names and values of a module's constants, and of the defaults in its functions and classes."""
    lines = re.findall(r"^(?:from|import) .*?(?:\)|$)", inspect.getsource(module), re.MULTILINE)
    imported = {name for line in lines for name in re.findall(r"\w+", line)}
    for name, value in vars(module).items():
        if name.isupper() and name not in imported:
            yield name, plain(value)
        elif getattr(value, "__module__", None) == module.__name__:
            if inspect.isclass(value):
                yield from of_class(value)
            elif inspect.isfunction(value):
                yield from of_function(name, value)


def of_function(name: str, function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the defaults of arguments."""
    for argument, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            yield f"{name}({argument})", plain(parameter.default)


def of_class(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield class attributes, defaults of fields and of methods. Settings are in settings.json."""
    if issubclass(kind, BaseModel):
        if issubclass(kind, Params):
            return
        yield f"{kind.__name__}.model_config", plain(dict(kind.model_config))
        for name, field in kind.model_fields.items():
            if not field.is_required():
                yield f"{kind.__name__}.{name}", plain(field.default)
    elif dataclasses.is_dataclass(kind):
        yield f"{kind.__name__} frozen", kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for name, value in vars(kind).items():
        if inspect.isfunction(value):
            yield from of_function(f"{kind.__name__}.{name}", value)
        elif not name.startswith("_") and not issubclass(kind, BaseModel):
            yield f"{kind.__name__}.{name}", plain(value)


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_as_they_were(name: str) -> None:
    module = importlib.import_module(f"raypath.{name}")
    found = json.loads(json.dumps({key: value for key, value in constants(module) if value is not UNKNOWN}))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if not os.environ.get("RAYPATH_UPDATE"):
        assert found == golden.get(name, {})
        return
    every = {key: value for key, value in {**golden, name: found}.items() if value and key in NAMES}
    GOLDEN.write_text(json.dumps(every, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
