"""Confirmation of what cannot be undone."""

from __future__ import annotations

import sys

from raypath.components.core.errors import UserError


def confirm(question: str, yes: bool) -> None:
    """Return when a person at the terminal agrees, or yes is True, the value of `--yes`. Raises UserError if not."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} There is no terminal to ask in", fix="add --yes; nothing was removed")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed", fix="answer y to remove it")
