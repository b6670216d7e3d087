"""Commands `backup ...`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from raypath.components.core.errors import ParamsError
from raypath.deploy.api.security import backups
from raypath.deploy.api.security.backups import BackupCheck
from raypath.deploy.console.confirm import confirm
from raypath.deploy.console.run_report import console
from raypath.deploy.console.terminal import Terminal, readable_size
from raypath.deploy.store.audit.log import record
from raypath.deploy.store.backup.encryption import create_key, read_key
from raypath.deploy.store.backup.repository import change_key, open_repository
from raypath.deploy.store.store import SHARED


def create(args: argparse.Namespace) -> backups.CreatedBackup:
    """Make a snapshot."""
    with file_progress("storing") as progress:
        return backups.create_backup(args.place, key=args.key, home=args.home, progress=progress)


def show_created(args: argparse.Namespace) -> None:
    """Make a snapshot and print what it has."""
    made = create(args)
    found = made.snapshot
    size, new = readable_size(found.bytes), readable_size(made.new_bytes)
    print(f"snapshot {found.id}: {found.files:,} files, {size}, of it {new} new")
    store = os.environ.get(SHARED, "")
    if "://" in store:
        console.print(f"artifacts in {store} are not part of it; use versions of the bucket", markup=False)


def listed(args: argparse.Namespace) -> list[backups.SnapshotInfo]:
    """Return the snapshots."""
    return backups.list_backups(args.place, key=args.key)


def show_listed(args: argparse.Namespace) -> None:
    """Print a line for each snapshot."""
    found = listed(args)
    if not found:
        console.print("no snapshots yet")
    for each in found:
        size = readable_size(each.bytes)
        line = f"{each.id}  {each.created:%Y-%m-%d %H:%M} UTC  {each.files:>7,} files  {size:>9}  {each.home}"
        console.print(line, markup=False, soft_wrap=True)


def verify(args: argparse.Namespace) -> BackupCheck:
    """Verify a backup."""
    with file_progress("reading") as progress:
        return backups.verify_backup(args.place, key=args.key, home=args.home, progress=progress)


def exit_status(found: BackupCheck) -> int:
    """Return 1 for a backup with problems."""
    return int(bool(found.problems))


def show_verified(args: argparse.Namespace) -> int:
    """Verify a backup and print its problems; returns the exit status."""
    found = verify(args)
    for problem in found.problems:
        console.print(problem, markup=False, soft_wrap=True)
    state = f"{len(found.problems)} problems" if found.problems else "complete"
    unused = f", {found.unused} blocks unused" if found.unused else ""
    print(f"{found.snapshots} snapshots, {found.blocks:,} blocks: {state}{unused}")
    return exit_status(found)


def restore(args: argparse.Namespace) -> None:
    """Restore a snapshot and print what to do next."""
    with file_progress("restoring") as progress:
        found = backups.restore_backup(args.place, args.snapshot, key=args.key, home=args.home, progress=progress)
    print(f"snapshot {found.id}: {found.files:,} files, {readable_size(found.bytes)}, in {args.home}")
    console.print("Start services with `raypath up`, and serve again with `raypath run`, which reuses every step.")


def prune(args: argparse.Namespace) -> None:
    """Delete old snapshots and print how many."""
    if args.keep < 1:
        raise ParamsError(f"--keep got {args.keep}", fix="keep at least 1 snapshot")
    confirm(f"Delete all snapshots in {args.place} but the last {args.keep}?", args.yes)
    snapshots, blocks = backups.prune_backups(args.place, args.keep, key=args.key, home=args.home)
    print(f"{snapshots} snapshots and {blocks:,} blocks deleted")


def new_key(args: argparse.Namespace) -> None:
    """Write a new master key, and wrap the key of a backup by it."""
    old = read_key(args.key) if args.place else None
    if old is not None:
        open_repository(args.place, old)  # before a file is written
    made = create_key(args.file)
    if old is not None:
        change_key(args.place, old, made)
        if args.home.is_dir():
            record(args.home, "backup.key", args.place, detail={"key": made.id})
        print(f"{args.place} needs key {made.id} in {args.file} from now on")
        return
    print(f"key {made.id} in {args.file}; keep a copy away from this machine: without it no backup can be read")


ACTIONS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "backup key": new_key,
    "backup create": show_created,
    "backup list": show_listed,
    "backup verify": show_verified,
    "backup restore": restore,
    "backup prune": prune,
}
"""Function of each command."""


@contextmanager
def file_progress(what: str) -> Iterator[backups.Progress]:
    """Yield a function that draws the bytes that are done, in a terminal alone."""
    terminal = Terminal(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda size: bar.advance(task, size)
