"""Constants, defaults and members of enumerations in public_values.json: those that have a public name, and constants
of a module alone, such as the name of a table.

Limits, timeouts, names of files, headers, metrics and variables: users, dashboards, manifests and stored files rely on
them, so a change of one is meant. After one: `python -m tests.test_public_values`.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import raypath

FILE = Path(__file__).parent / "public_values.json"
HERE = str(Path(raypath.__file__).parent)
FOLDERS = (
    "core",
    "evaluation",
    "export",
    "models",
    "registry",
    "tasks",
    "tracking",
    "training",
    "tuning",
    "serving",
    "inference",
)
STEPS = ("evaluate", "finetune", "pretrain", "register", "tune", "serve", "predict")
PACKAGES = (*(f"raypath.components.{folder}" for folder in FOLDERS), "raypath.deploy", "raypath.workflows")
MODULES = tuple(f"raypath.components.{step}" for step in STEPS)
LEFT_OUT = (
    "raypath.components.inference.backends",
    "raypath.components.inference.generation.evaluation.harness_model",  # needs an extra
    "raypath.deploy.kubeflow.__main__",
)


def _modules() -> Iterator[ModuleType]:
    for name in PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not found.name.startswith(LEFT_OUT):
                yield importlib.import_module(found.name)
    yield from map(importlib.import_module, MODULES)


def _plain(value: Any) -> Any:
    """The value as JSON has it. Raises TypeError for one that is an object, or a path of this machine."""
    if isinstance(value, str) and value.startswith(HERE):
        raise TypeError(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=str)
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, re.Pattern):
        return _plain(value.pattern)
    if isinstance(value, bytes):
        return value.decode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    raise TypeError(type(value))


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values that can be written."""
    found = {}
    for name, value in values.items():
        try:
            found[name] = _plain(value)
        except (TypeError, UnicodeDecodeError):
            continue
    return found


def _defaults(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return _kept({each.name: each.default for each in parameters if each.default is not each.empty})


def _of_class(kind: type) -> dict[str, Any]:
    if issubclass(kind, enum.Enum):
        return {member.name: member.value for member in kind}
    if issubclass(kind, BaseModel):
        return _kept({name: field.default for name, field in kind.model_fields.items() if not field.is_required()})
    if dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(kind)
        return _kept({each.name: each.default for each in fields if each.default is not dataclasses.MISSING})
    return {}


def _values(module: ModuleType) -> dict[str, Any]:
    own = {name: each for name, each in vars(module).items() if not name.startswith("_") or name.isupper()}
    assigned = set(re.findall(r"^(_?[A-Z][A-Z0-9_]*)\b[^=\n]*=", inspect.getsource(module), re.M))
    found = _kept({name: each for name, each in own.items() if name in assigned})
    for name, each in own.items():
        if getattr(each, "__module__", "") != module.__name__ or isinstance(each, str):
            continue
        if inspect.isclass(each):
            found[name] = _of_class(each)
            methods = {key: inner for key, inner in vars(each).items() if inspect.isfunction(inner)}
            public = [key for key in methods if key == "__init__" or not key.startswith("_")]
            # A dataclass has the defaults of its fields.
            left_out = "__init__" if dataclasses.is_dataclass(each) else ""
            found |= {f"{name}.{key}": _defaults(methods[key]) for key in public if key != left_out}
        elif inspect.isfunction(each):
            found[name] = _defaults(each)
    return {name: value for name, value in found.items() if value != {}}


def public_values() -> dict[str, Any]:
    """Values by module and name."""
    found = {module.__name__.removeprefix("raypath."): _values(module) for module in _modules()}
    return {name: values for name, values in found.items() if values}


# MLflow and Ray Serve warn when they are imported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*type hint:UserWarning")
def test_public_values_are_pinned() -> None:
    found, pinned = public_values(), json.loads(FILE.read_text(encoding="utf-8"))
    for module in sorted({*found, *pinned}):
        assert found.get(module) == pinned.get(module), module


if __name__ == "__main__":
    FILE.write_text(json.dumps(public_values(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
