"""Command `risk`: what may go wrong with a project, from evidence."""

from __future__ import annotations

import argparse

from rich.markup import escape
from rich.table import Table

from raypath.components.risk.assessment import NO_ADVICE, Assessment
from raypath.components.risk.page import PAGE, figures, write_assessment
from raypath.deploy.api.security import risk as api
from raypath.deploy.console.run_report import console
from raypath.deploy.execution.overrides import from_line

STYLES = {"bad": "red", "warn": "yellow", "soft": "dim"}


def assess(args: argparse.Namespace) -> Assessment:
    """Assess the risks; write the page and the JSON file where they are asked for."""
    found = api.risk(from_line(args.settings), answers=args.answers, home=args.home)
    if args.out:
        write_assessment(args.out, found)
    return found


def exit_status(found: Assessment, args: argparse.Namespace) -> int:
    """Return 1 if a risk has the score that --fail-on names, or more."""
    return int(args.fail_on is not None and bool(found.at_least(args.fail_on)))


def show(args: argparse.Namespace) -> int:
    """Assess the risks and print them; returns the exit status."""
    from raypath.components.risk.page import tone

    found = assess(args)
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for name in ("score", "area", "risk, evidence and what lowers it"):
        table.add_column(name, no_wrap=name != "risk, evidence and what lowers it")
    for each in found.risks:
        levels = f"likelihood {each.likelihood.word}, impact {each.impact.word}"
        said = f"{escape(each.what)}\n[dim]{escape(each.evidence)}; {levels}[/]\n[bold]{escape(each.remedy)}[/]"
        table.add_row(f"[{STYLES[tone(each.score)]}]{each.score}[/]", each.area, said)
    console.print(table)
    known = [f"{name} {value}" for name, value in figures(found.business) if value != "not known"]
    console.print("; ".join(known), markup=False)
    console.print(NO_ADVICE, style="dim")
    if args.out:
        console.print(f"page {args.out / PAGE}", markup=False, soft_wrap=True)
    return exit_status(found, args)
