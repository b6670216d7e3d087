"""`raypath inspect`: the data report of files, in the terminal and as a page."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from raypath.components.inspection.page.render import grouped
from raypath.components.inspection.report import InspectionReport, Severity
from raypath.deploy.api.inspection import inspect, page_of
from raypath.deploy.console.run_report import console
from raypath.deploy.execution.overrides import from_line

_MARKS = {Severity.ERROR: "[red]✗[/]", Severity.WARNING: "[yellow]![/]", Severity.NOTE: "[dim]·[/]"}


def inspect_files(args: argparse.Namespace) -> InspectionReport:
    """Inspect and write what the options name. With -o alone, or without options, the page goes to a folder."""
    return inspect(args.data, from_line(args.settings), out=args.out, apply=args.apply)


def show_inspection(args: argparse.Namespace) -> None:
    """Inspect, and print a summary: the rows, then each finding with the settings that mend it."""
    report = inspect_files(args)
    splits = ", ".join(f"{name} {rows:,}" for name, rows in report.splits.items())
    console.print(f"[bold]{report.rows:,} rows[/]{f' ({splits})' if splits else ''}")
    for column in report.columns:
        role = f"{column.role}: " if column.role else ""
        missing = f", {column.missing:,} missing" if column.missing else ""
        console.print(f"  {role}{column.name}  {column.kind} ({column.why}{missing})", markup=False)
    console.print(f"\n{_summary(report)}")
    for finding in report.findings:
        console.print(f" {_MARKS[finding.severity]} ", end="")
        console.print(finding.text, markup=False)
        if finding.rows:
            rows = "; ".join(f"of {source}: {rows}" for source, rows in grouped(finding.rows[:5]).items())
            more = ", ..." if finding.count > 5 else ""
            console.print(f"   rows {rows}{more}", markup=False, style="dim")
        if finding.examples:
            console.print(f"   such as {', '.join(finding.examples[:3])}", markup=False, style="dim")
        if finding.settings and finding.kind != "columns":
            line = " ".join(f"-s {shlex.quote(f'{key}={value}')}" for key, value in finding.settings.items())
            console.print(f"   {line}", markup=False, style="cyan")
    for line in report.skipped:
        console.print(f" left out: {line}", markup=False, style="dim")
    _show_files(args.out, args.apply)


def _summary(report: InspectionReport) -> str:
    counts = [(report.count(severity), str(severity)) for severity in Severity]
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)


def _show_files(out: Path | None, apply: Path | None) -> None:
    if out:
        console.print(f"\npage      {page_of(out)}", markup=False)
    if apply:
        console.print(f"settings  {apply}: raypath run WORKFLOW -f {apply}", markup=False)
