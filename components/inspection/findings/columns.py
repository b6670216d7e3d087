"""Empty values of the columns of a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from raypath.components.data.wording import percent, plural, verb
from raypath.components.inspection.columns.guess import Profile
from raypath.components.inspection.report import Finding, Severity


def missing_values(profiles: Iterable[Profile], used: Collection[str]) -> Iterator[Finding]:
    """Yield a finding for each column of texts or labels with empty values, and one for all other columns.

    used: names of the columns of texts and labels.
    """
    others = []
    for profile in profiles:
        if profile.missing and profile.name not in used:
            others.append(profile)
        elif profile.missing:
            yield Finding(
                kind="missing",
                severity=Severity.ERROR,
                text=f"column {profile.name} is empty in {profile.missing:,} of {plural(profile.rows, 'row')} "
                f"({percent(profile.missing, profile.rows)}); a run raises an error at the first",
                count=profile.missing,
                settings={"read.nulls": "drop"},
            )
    if others:
        names = ", ".join(profile.name for profile in others[:5]) + (", ..." if len(others) > 5 else "")
        text = f"{plural(len(others), 'other column')} {verb(len(others), 'has', 'have')} empty values ({names})"
        yield Finding(kind="missing", severity=Severity.NOTE, text=text, count=len(others))
