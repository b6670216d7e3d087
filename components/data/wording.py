"""Numbers in messages: with their nouns, verbs that agree with them, and shares."""

from __future__ import annotations


def plural(number: int, noun: str, many: str = "") -> str:
    """Format a number with its noun: 1 row, 2,000 rows."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def verb(number: int, one: str, many: str) -> str:
    """Choose the form that agrees with a number: 1 row is, 2 rows are."""
    return one if number == 1 else many


def percent(part: int, whole: int) -> str:
    """Format a share: 12%, 0.4% or <0.1%."""
    share = 100 * part / max(whole, 1)
    if 0 < share < 0.1:
        return "<0.1%"
    return f"{share:.1f}%" if share < 10 else f"{share:.0f}%"
