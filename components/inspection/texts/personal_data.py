"""Personal data in texts, by patterns alone: names and postal addresses are not found.

Numbers with a checksum count only if it is right: cards (Luhn), IBAN (ISO 13616, mod 97), Chinese resident ID numbers
(GB 11643, mod 11-2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.privacy import checksums


def _luhn(text: str) -> bool:
    digits = "".join(sign for sign in text if sign.isdigit())
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and checksums.luhn(digits)


def _iban(text: str) -> bool:
    return checksums.iban(re.sub(r"\s", "", text))


def _ip(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_unspecified
    except ValueError:
        return False


def _phone(text: str) -> bool:
    """7 to 15 digits (E.164) with +, or 10 to 15 in groups: a year or a price is none."""
    digits = sum(sign.isdigit() for sign in text)
    if text.lstrip().startswith(("+", "00")):
        return 7 <= digits <= 15
    return 10 <= digits <= 15 and (bool(re.search(r"[ ().\-/]", text.strip())) or bool(re.fullmatch(r"1\d{10}", text)))


_PATTERNS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "email": (
        r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]++@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}",
        lambda _: True,
    ),
    "url": (r"(?:https?://|www\.)[^\s<>\"']{4,}", lambda _: True),
    "ip": (r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b", _ip),
    "card": (
        r"(?<![\d.])(?<!\d[ \-])(?:[2-6]\d{12,18}|[2-6]\d{3}(?:[ \-]\d{4}){3}(?:[ \-]\d{1,3})?"
        r"|3\d{3}[ \-]\d{6}[ \-]\d{5})(?![ \-]?\d)",
        _luhn,
    ),
    "iban": (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _iban),
    "resident_id": (r"\b\d{17}[\dXx]\b", checksums.resident_id),
    "phone": (
        r"(?<!\d)(?<!\d[ .\-/])(?:(?:\+|00)\d[\d ().\-/]{5,18}\d|\(?\d{2,4}\)?[ .\-/]\d{3,4}[ .\-/]\d{3,4}|1[3-9]\d{9})"
        r"(?![ .\-/]?\d)",
        _phone,
    ),
}
KINDS = tuple(_PATTERNS)
_LIKELY = r"@[A-Za-z0-9]|https?://|www\.|\d[ ().\-/:]?\d?[ ().\-/:]?\d[\d ().\-/:]{3,}|[A-Z]{2}\d\d|:[0-9A-Fa-f]+:"
"""Pattern of RE2 that every text with personal data matches."""
_COMPILED = {kind: re.compile(pattern) for kind, (pattern, _) in _PATTERNS.items()}
_SPECIAL = ("card", "iban", "resident_id", "ip")
"""Kinds whose digits are no phone number."""


def _without(kind: str, text: str) -> str:
    """Replace the matches of a kind by spaces."""
    valid = _PATTERNS[kind][1]
    return _COMPILED[kind].sub(lambda match: " " if valid(match[0]) else match[0], text)


def find(text: str) -> set[str]:
    """Return the kinds of personal data in a text."""
    found = set()
    rest = text
    for kind, (_, valid) in _PATTERNS.items():
        if any(valid(match[0]) for match in _COMPILED[kind].finditer(rest if kind == "phone" else text)):
            found.add(kind)
            if kind in (*_SPECIAL, "url"):
                rest = _without(kind, rest)
    return found


def personal_data(texts: pa.Array) -> Array:
    """Kinds of personal data as bits in the order of KINDS, uint8 [N]."""
    likely = pc.match_substring_regex(texts, _LIKELY)
    found = np.zeros(len(texts), np.uint8)
    rows = np.flatnonzero(likely.to_numpy(zero_copy_only=False))
    for row, text in zip(rows, texts.take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
        for kind in find(text):
            found[row] |= 1 << KINDS.index(kind)
    return found
