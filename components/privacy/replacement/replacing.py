"""Replacement of personal data: by kind, asterisks, a keyed hash or a surrogate."""

from __future__ import annotations

import re
from collections.abc import Callable

from raypath.components.core.columns import Replacement
from raypath.components.privacy.keys import RedactionKey
from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.plain import plain
from raypath.components.privacy.replacement.surrogates import surrogate

HASH = 12
"""Hex digits of a hash: 48 bits."""
Replace = Callable[[Kind, str], str]


def replacer(replacement: Replacement, key: RedactionKey | None) -> Replace:
    """Return the function that replaces an item, given its kind. key: of a hash or of surrogates."""
    if replacement == "type":
        return lambda kind, _: kind.tag
    if replacement == "mask":
        return lambda _, item: mask(item)
    assert key is not None
    if replacement == "hash":
        return lambda kind, item: f"<{kind.name}:{key.mac(kind, canonical(kind, item)).hex()[:HASH]}>"
    return lambda kind, item: surrogate(kind, item, key.mac("surrogate", kind, canonical(kind, item)))


def mask(item: str) -> str:
    """Replace letters and digits by asterisks; the length and separators remain."""
    return "".join("*" if sign.isalnum() else sign for sign in item)


def canonical(kind: Kind, item: str) -> str:
    """Return what is equal for one item in several forms: without case, spaces and separators, a phone number without
    the code of China."""
    text = plain(item).text.casefold()
    if kind in (Kind.EMAIL, Kind.SECRET, Kind.IP):
        return text
    if kind is Kind.PHONE:
        digits = re.sub(r"\D", "", re.sub(r"\(0\)", "", text)).removeprefix("00")
        return digits.removeprefix("86") if len(digits) == 13 else digits
    if kind in (Kind.NAME, Kind.ORGANISATION, Kind.ADDRESS):
        return " ".join(text.split())
    return "".join(sign for sign in text if sign.isalnum())
