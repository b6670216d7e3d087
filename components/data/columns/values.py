"""Values of any format: convert one to the name of a class, and check that text is valid Unicode."""

from __future__ import annotations

from typing import Any


def class_name(member: Any) -> str | None:
    """Format a member as text: true gives "true", 3 and 3.0 give "3"; None if it cannot name a class."""
    if isinstance(member, bool):
        return str(member).lower()
    if isinstance(member, int):
        return str(member)
    if isinstance(member, float):
        return str(int(member)) if member.is_integer() else None
    return member.strip() if isinstance(member, str) and is_valid_unicode(member) else None


def is_valid_unicode(text: str) -> bool:
    """Return False for text with a lone surrogate, which JSON can express and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
