"""Commands `comply ...`: review a project by a regime, and state what only a person can know."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from raypath.components.compliance.outcome import Outcome
from raypath.components.compliance.page import PAGE, write_review
from raypath.components.compliance.regime import load_regime, regime_names, topics
from raypath.components.compliance.review import NO_ADVICE, Review, compare
from raypath.components.core.errors import ParamsError
from raypath.deploy.api.security import compliance
from raypath.deploy.api.security.compliance import SignedStatement
from raypath.deploy.console.run_report import console
from raypath.deploy.execution.overrides import from_line

STYLES = {
    Outcome.MET: "green",
    Outcome.PARTLY: "yellow",
    Outcome.NOT_MET: "red",
    Outcome.UNKNOWN: "yellow",
    Outcome.NOT_APPLICABLE: "dim",
}


def review(args: argparse.Namespace) -> Review:
    """Review the project; write the page and the JSON file where they are asked for."""
    earlier = _earlier(args.against, args.regime) if args.against else None
    found = compliance.review(args.regime, from_line(args.settings), profile=args.profile, home=args.home)
    if args.out:
        write_review(args.out, found, compare(earlier, found) if earlier else ())
    return found


def exit_status(found: Review, args: argparse.Namespace) -> int:
    """Return 1 if an item that --fail-on names is open."""
    return int(bool(found.failed(args.fail_on)))


def show_review(args: argparse.Namespace) -> int:
    """Review the project and print a table; returns the exit status."""
    # Before -o, which may replace the file.
    earlier = _earlier(args.against, args.regime) if args.against else None
    found = review(args)
    console.print(f"[bold]{found.title}[/] ({found.text}), as of {found.as_of}", highlight=False)
    console.print(NO_ADVICE, style="dim")
    _print_items(found, args.all)
    if earlier is not None:
        _print_changes(earlier, found)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.counts().items() if count)
    console.print(f"{counts}. {NO_ADVICE}", markup=False)
    failed = found.failed(args.fail_on)
    if failed:
        console.print(f"{len(failed)} open items of severity {args.fail_on}", markup=False, style="bold red")
    if args.out:
        console.print(f"page {args.out / PAGE}", markup=False, soft_wrap=True)
    return exit_status(found, args)


def _print_items(found: Review, everything: bool) -> None:
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for name in ("outcome", "article", "requirement, evidence and remedy"):
        table.add_column(name, no_wrap=name == "outcome", max_width=22 if name == "article" else None)
    for item in found.items:
        if item.outcome is Outcome.NOT_APPLICABLE and not everything:
            continue
        later = f" (applies from {item.applies_from})" if item.applies_from else ""
        remedy = f"\n[bold]{escape(item.remedy)}[/]" if item.remedy else ""
        said = f"{escape(item.requirement)}{later}\n[dim]{escape(item.evidence)}[/]{remedy}"
        place = f"{escape(item.article)}\n[dim]{item.severity}[/]"
        table.add_row(f"[{STYLES[item.outcome]}]{item.outcome}[/]", place, said)
    console.print(table)


def _earlier(file: Path, regime: str) -> Review:
    try:
        found = Review.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        fix = "give the review.json of `comply review -o`, or what --json printed"
        raise ParamsError(f"--against {file} is no review", fix=fix) from None
    if found.regime != regime:
        raise ParamsError(f"--against {file} is a review by {found.regime}", fix=f"give one by {regime}")
    return found


def _print_changes(before: Review, after: Review) -> None:
    changed = compare(before, after)
    console.print(f"changes since {before.at:%Y-%m-%d %H:%M}: {len(changed) or 'none'}", markup=False)
    for each in changed:
        line = f"  {each.article} {each.id}: {each.before or 'not there'} -> {each.after or 'not there'}"
        console.print(line, markup=False)


def state(args: argparse.Namespace) -> SignedStatement:
    """Sign and record a statement. Raises ParamsError."""
    if not args.text:
        raise ParamsError("--text is empty", fix=topics()[args.topic].question if args.topic in topics() else "")
    days = _days(args.valid)
    return compliance.state(args.topic, args.text, by=args.by, days=days, document=args.document, home=args.home)


def show_stated(args: argparse.Namespace) -> None:
    """Sign and record a statement, and print until when it is valid."""
    made = state(args)
    about = f" about {made.document}" if made.document else ""
    print(f"{made.topic}{about}: stated by {made.by}, valid until {made.until:%Y-%m-%d}, {made.file}")


def show_topics(args: argparse.Namespace) -> None:
    """Print the topics of statements, and the regimes that ask for each."""
    asked: dict[str, list[str]] = {}
    for name in regime_names():
        for wanted in dict.fromkeys(item.statement for item in load_regime(name).items if item.statement):
            asked.setdefault(wanted, []).append(name)
    for name, topic in topics().items():
        console.print(f"{name:<26} {topic.question} ({', '.join(asked.get(name, []))})", markup=False, soft_wrap=True)


def _days(text: str) -> int:
    found = re.fullmatch(r"(\d{1,5})d?", text)
    if found is None:
        raise ParamsError(f"--valid got {text!r}", fix="give days, such as 365d")
    return int(found[1])


ACTIONS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "comply review": show_review,
    "comply state": show_stated,
    "comply topics": show_topics,
}
"""Function of each command."""
