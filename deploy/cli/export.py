"""`raypath export`, with its progress in a terminal, and `raypath card`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from raypath.components.export.target import Progress as Report
from raypath.deploy.api.models import export
from raypath.deploy.console.terminal import Terminal, readable_size


def export_version(args: argparse.Namespace) -> str:
    """Export the model that the arguments name. Returns the message to print."""
    with _progress(args.out.name) as report:
        folder = export(args.model, args.out, to=args.to, type=args.type, progress=report, home=args.home)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} files, {readable_size(size)}, in {folder}: {', '.join(path.name for path in files)}"


def write_cards(args: argparse.Namespace) -> str:
    """Write the cards of the version that the arguments name. Returns the message to print."""
    from raypath.deploy.api.security.cards import card

    stated = {"license": args.license, "about": args.about, "contact": args.contact}
    folder = card(args.model, args.out, **stated, home=args.home)
    return f"in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"


@contextmanager
def _progress(name: str) -> Iterator[Report]:
    """Yield a function that draws the bytes that are written, in a terminal alone."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Terminal(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"writing {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
