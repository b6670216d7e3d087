"""Configuration of a process by its entry point: everything that is changed for the whole process is changed here."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_NAMESPACES = str(Path(__file__).with_name("namespaces"))
"""Folder of namespace packages, which a module in the current folder would shadow."""


def configure_process(*, interrupt_on_sigterm: bool = False, environment: Mapping[str, str] | None = None) -> None:
    """Make new files private, keep the current folder from shadowing installed packages, and set variables.

    Output that the locale cannot encode does not end the process.

    interrupt_on_sigterm: SIGTERM raises KeyboardInterrupt, as Ctrl-C does. environment: variables to set unless the
    user has set them.
    """
    # Files of a run contain the user's data and keys.
    os.umask(0o077)
    accept_any_text()
    search_current_folder_last()
    if interrupt_on_sigterm:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name, value in (environment or {}).items():
        os.environ.setdefault(name, value)


def accept_any_text() -> None:
    """Let standard output and error take any text: what their encoding lacks is replaced, and a closed one discards.

    Otherwise a label or a file name would end a run in a locale that is not UTF-8.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open as long as the process
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def search_current_folder_last() -> None:
    """Move the current folder to the end of the module search path, where it is on it.

    `python -m` and Ray's runtime environments put it first, and a user's `mlflow.py` there would be imported in place
    of MLflow.
    """
    if not {"", os.getcwd()}.isdisjoint(sys.path):
        sys.path[:] = [path for path in sys.path if path not in ("", os.getcwd(), _NAMESPACES)]
        sys.path += [_NAMESPACES, os.getcwd()]


def search_current_folder() -> None:
    """Search the current folder, where a team keeps its package, after all others. Console scripts do not search it."""
    if {"", os.getcwd()}.isdisjoint(sys.path):
        sys.path += [_NAMESPACES, os.getcwd()]


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress log lines of libraries below WARNING, whatever handlers they install when they are imported."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
