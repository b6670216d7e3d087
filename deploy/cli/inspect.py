"""`raypath inspect`: the data report of files, in the terminal and as a page."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.table import Table
from rich.text import Text

from raypath.components.data.wording import plural
from raypath.components.inspection.page.render import row_numbers
from raypath.components.inspection.report import Column, Finding, InspectionReport, Severity
from raypath.deploy.api.inspection import inspect, page_of
from raypath.deploy.console.run_report import console
from raypath.deploy.execution.overrides import from_line

_MARKS = {Severity.ERROR: "[red]✗[/]", Severity.WARNING: "[yellow]![/]", Severity.NOTE: "[dim]·[/]"}
_SHOWN_COLUMNS = 12


def inspect_files(args: argparse.Namespace) -> InspectionReport:
    """Inspect and write what the options name. With -o alone, or without options, the page goes to a folder."""
    return inspect(args.data, from_line(args.settings), out=args.out, apply=args.apply)


def show_inspection(args: argparse.Namespace) -> None:
    """Inspect, and print a summary: the rows, then each finding with the settings that mend it."""
    report = inspect_files(args)
    splits = ", ".join(f"{name} {rows:,}" for name, rows in report.splits.items())
    console.print(f"[bold]{plural(report.rows, 'row')}[/]{f' ({splits})' if splits else ''}")
    _show_columns(report.columns)
    console.print(f"\n{_summary(report)}")
    for finding in report.findings:
        _show_finding(finding)
    for line in report.skipped:
        _print("   ", f"left out: {line}", "dim")
    _show_files(args.out, args.apply, _workflow(report))


def _show_columns(columns: list[Column]) -> None:
    """Print the columns: those with a role, and some of the others."""
    ordered = sorted(columns, key=lambda column: not column.role)
    shown = max(_SHOWN_COLUMNS, sum(bool(column.role) for column in columns))
    for column in ordered[:shown]:
        role = f"{column.role}: " if column.role else ""
        missing = f", {column.missing:,} missing" if column.missing else ""
        _print("  ", f"{role}{column.name}  {column.kind} ({column.why}{missing})")
    if len(columns) > shown:
        _print("  ", f"and {plural(len(columns) - shown, 'more column')}, in the page of -o FOLDER", "dim")


def _show_finding(finding: Finding) -> None:
    _print(f" {_MARKS[finding.severity]} ", finding.text)
    if finding.rows:
        _print("   ", row_numbers(finding.rows[:5]) + (", ..." if finding.count > 5 else ""), "dim")
    if finding.examples:
        _print("   ", f"such as {', '.join(finding.examples[:3])}", "dim")
    if finding.settings and finding.kind != "columns":
        settings = (shlex.quote(f"{key}={value}") for key, value in finding.settings.items())
        _print("   ", " ".join(f"-s {each}" for each in settings), "cyan")


def _print(lead: str, text: str, style: str = "") -> None:
    """Print a text after a lead in markup; a terminal gets its further lines indented, a pipe one line."""
    if not console.is_terminal:
        console.print(lead, end="")
        console.print(text, markup=False, style=style)
        return
    grid = Table.grid()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(lead, Text(text, style))
    console.print(grid, soft_wrap=False)


def _summary(report: InspectionReport) -> str:
    counts = [(report.count(severity), str(severity)) for severity in Severity]
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)


def _workflow(report: InspectionReport) -> str:
    """Return the workflow for conversations of this form; WORKFLOW for other data, which has several."""
    if report.conversations is None:
        return "WORKFLOW"
    marks = {column.role for column in report.columns}
    return "preference" if marks & {"chosen", "label"} else "chat"


def _show_files(out: Path | None, apply: Path | None, workflow: str) -> None:
    if out:
        console.print(f"\npage      {page_of(out)}", markup=False)
    if apply:
        console.print(f"settings  {apply}: raypath run {workflow} -f {apply}", markup=False)
