"""Command `audit`: list, verify and anchor the audit log."""

from __future__ import annotations

import argparse
from pathlib import Path

from raypath.components.core.errors import UserError, printable
from raypath.deploy.cli.security.keys import first_moment
from raypath.deploy.console.run_report import console
from raypath.deploy.store.audit.anchors import copy_elsewhere
from raypath.deploy.store.audit.log import anchor_now, read
from raypath.deploy.store.audit.records import AuditRecord
from raypath.deploy.store.audit.verify import Verification, verify


def records(args: argparse.Namespace) -> list[AuditRecord]:
    """Return the records that the options select. Raises ParamsError."""
    begin = first_moment(args.since) if args.since else None
    kind = f"{args.action}."
    return [
        each
        for each in read(args.home)
        if (begin is None or each.time >= begin)
        and (not args.action or f"{each.action}.".startswith(kind))
        and (args.tenant is None or each.detail.get("tenant") == args.tenant)
    ]


def show_records(args: argparse.Namespace) -> None:
    """Print a line for each record."""
    found = records(args)
    if not found:
        console.print("no records" if args.since or args.action or args.tenant else "no records yet")
    for each in found:
        detail = "  ".join(
            f"{name}={_short(value)}" for name, value in each.detail.items() if value not in ("", [], None)
        )
        line = f"{each.n:>6}  {each.time:%Y-%m-%d %H:%M:%S}  {each.actor.user or each.actor.uid}@{each.actor.host}"
        line += f"  {each.action:<15} {each.target}  {each.outcome}  {detail}"
        console.print(printable(line.rstrip()), markup=False, soft_wrap=True, highlight=False)


def _short(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def verify_log(args: argparse.Namespace) -> Verification:
    """Verify the log."""
    return verify(args.home, args.anchors)


def exit_status(found: Verification) -> int:
    """Return 1 if the log is not as it was written."""
    return int(bool(found.problems))


def show_verification(found: Verification) -> int:
    """Print the problems, or that there are none; returns the exit status."""
    for each in found.problems:
        console.print(printable(f"{each.where}: {each.what}"), markup=False, soft_wrap=True)
    anchored = f"{found.anchors} anchors, the last one after record {found.anchored}" if found.anchors else "no anchors"
    state = f"{len(found.problems)} problems" if found.problems else "as written"
    console.print(f"{found.records} records, {anchored}: {state}", markup=False)
    return exit_status(found)


def anchor_log(home: Path) -> str:
    """Sign the end of the log and copy the anchors; returns the message to print. Raises UserError for no records."""
    head = anchor_now(home)
    if head is None:
        raise UserError(f"there are no records in {home}", fix="records are made by runs, promotions, keys and exports")
    copied = copy_elsewhere(home)
    where = f", and {copied} anchors copied" if copied else ""
    return f"record {head.n} is anchored{where}"
