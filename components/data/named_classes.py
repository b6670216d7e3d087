"""Classes that a setting or a model's metadata names as `package.module:Class`, such as tasks and kinds of columns."""

from __future__ import annotations

import importlib
import sys
from typing import TypeVar

from raypath.components.core.errors import ParamsError

C = TypeVar("C")


def import_class(path: str, base: type[C], what: str) -> type[C]:
    """Import a class. path: package.module:Class; what: of the class, for messages. Raises ParamsError."""
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the module may raise anything
        reason = str(error) if isinstance(error, ImportError | AttributeError) else repr(error)
        raise ParamsError(f"{what} cannot be imported ({reason})", fix="check the spelling and the module") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ParamsError(f"{path} is not a {base.__name__}", fix=f"subclass {base.__module__}.{base.__name__}")
    return found


def is_imported(path: str, base: type) -> bool:
    """Return True for such a class in a module that is already loaded; a module's `__getattr__` is not run."""
    module, _, attribute = path.partition(":")
    found = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    return isinstance(found, type) and issubclass(found, base)
