"""Commands `retention ...`: days after which a home deletes what it keeps."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from raypath.components.core.errors import ParamsError
from raypath.deploy.console.run_report import console
from raypath.deploy.console.terminal import readable_size
from raypath.deploy.store.audit.log import audited
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.retention import KINDS, apply, enforce, read_days, write_days


def set_days(args: argparse.Namespace) -> None:
    """Change the days of kinds and print all. Raises ParamsError."""
    changes = dict(map(_change, args.days))
    with audited(args.home, "retention.set", str(args.home), changes):
        write_days(args.home, changes)
    show(args)


def show(args: argparse.Namespace) -> None:
    """Print the days of each kind."""
    found = read_days(args.home)
    for kind in KINDS:
        print(f"{kind:<12} {f'{found[kind]} days' if kind in found else 'kept'}")


def apply_days(args: argparse.Namespace) -> None:
    """Delete what is older, and print it by kind."""
    store = open_store(args.home)
    found = apply(store, dry_run=True) if args.dry_run else enforce(store)
    if not found:
        console.print("nothing is deleted; `raypath retention set predictions=30` sets days")
    for each in found:
        would = "would be deleted" if args.dry_run else "deleted"
        print(f"{each.kind:<12} {each.count:,} older than {each.days} days {would}, {readable_size(each.bytes)}")


def _change(text: str) -> tuple[str, int | None]:
    kind, _, days = text.partition("=")
    if days == "never":
        return kind, None
    if not (days.isascii() and days.isdigit()):
        raise ParamsError(f"got {text!r}", fix="give KIND=DAYS, such as predictions=30, or KIND=never")
    return kind, int(days[:9])


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "retention set": set_days,
    "retention show": show,
    "retention apply": apply_days,
}
"""Function of each command."""
