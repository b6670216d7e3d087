"""The token of the MLflow servers that tests start, in the environment of all tests and of what they start."""

from __future__ import annotations

import os
from pathlib import Path

from raypath.components.tracking import login

TOKEN = "1" * 64


def set_variables() -> None:
    """Let MLflow's clients in this process and its children log in at the servers of tests."""
    os.environ.update(login.variables(TOKEN))


def write_token(folder: Path) -> Path:
    """Make this the token of a home, before its services start. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mlflow.token"
    file.touch(mode=0o600)
    file.write_text(TOKEN)
    return file
