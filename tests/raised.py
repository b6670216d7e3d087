"""The whole text of an error: its class, what happened, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raypath.components.core.errors import RaypathError


def raised(call: Callable[[], Any]) -> str:
    """Return "Class: text" of the error that a call raises."""
    with pytest.raises((RaypathError, ValueError)) as caught:
        call()
    return f"{type(caught.value).__name__}: {caught.value}"
