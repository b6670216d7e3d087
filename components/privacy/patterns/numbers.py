"""Numbers with a check digit or a fixed form: cards, IBAN, identity cards, US social security numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raypath.components.privacy import checksums
from raypath.components.privacy.patterns.spans import Range, alphanumeric, joined, matches, only

_LONG = re.compile(r"(?:\d[\s.\-]{0,2}){9,}").search
"""Nine digits, however divided."""
_DIGITS = re.compile(r"(?<![0-9A-Za-z_])(?<!\d[.,])\d(?:(?:[ .\-_/]|\r?\n[ \t]*| - )?\d){11,18}(?![0-9A-Za-z_]|[.,]\d)")
_IBAN = re.compile(
    rf"(?:(?<![A-Za-z0-9])|(?<=IBAN)|(?<=iban))(?:{'|'.join(checksums.IBAN_LENGTHS)})[ ]?\d{{2}}(?=[A-Z0-9 .\-\n])",
    re.IGNORECASE,
)


def card(text: str) -> Iterator[Range]:
    """Find card numbers; a longer row of numbers is tried from each group on."""
    for match in _DIGITS.finditer(text):
        if re.fullmatch(r"\d+\.\d+", match[0]):
            continue
        groups = list(re.finditer(r"\d+", match[0]))
        found = _card_in(groups, match.start())
        if found:
            yield found


def _card_in(groups: list[re.Match[str]], offset: int) -> Range | None:
    for first, start in enumerate(groups):
        for end in reversed(groups[first:]):
            digits = "".join(group[0] for group in groups[first : groups.index(end) + 1])
            if len(digits) >= 12 and checksums.card(digits):
                return offset + start.start(), offset + end.end()
    return None


def iban(text: str) -> Iterator[Range]:
    """Find IBANs: as many letters and digits as the country's have, with spaces, dashes and breaks between them."""
    for match in _IBAN.finditer(text):
        wanted = checksums.IBAN_LENGTHS[match[0][:2].upper()]
        signs, at = "", match.start()
        while len(signs) < wanted and at < len(text):
            sign = text[at]
            if sign.isascii() and sign.isalnum():
                signs += sign
            elif sign not in " -.\n\r\t":
                break
            at += 1
        if not (text[at : at + 1].isascii() and text[at : at + 1].isalnum()) and checksums.iban(signs):
            yield match.start(), at


_resident = matches(
    r"(?<![0-9A-Za-z])(?<!\d[.\-])(?P<item>\d{6}[\s\-]?(?:18|19|20)\d{2}[\s\-]?\d{2}[\s\-]?\d{2}[\s\-]?\d{3}[\s\-]"
    r"?[\dXx])(?![0-9A-Za-z])",
    lambda match: checksums.resident_id(alphanumeric(match["item"])),
)
_old_resident = matches(
    r"(?:身份证|证件号)[^\d\n]{0,12}(?P<item>[1-8]\d{5}\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3})(?!\d)"
)
_hong_kong = matches(
    r"(?<![0-9A-Za-z])(?P<item>(?P<letters>[A-Z]{1,2})(?P<digits>\d{6})\(?(?P<check>[0-9A])\)?)(?![0-9A-Za-z])",
    lambda match: "(" in match[0] and checksums.hong_kong_id(match["letters"], match["digits"], match["check"]),
)
_taiwan = matches(
    r"(?<![0-9A-Za-z])(?P<item>[A-Z][1289]\d{8})(?![0-9A-Za-z])", lambda match: checksums.taiwan_id(match["item"])
)
resident_id = only(_LONG, joined(_resident, _old_resident))
other_ids = only(re.compile(r"[A-Z]\d{6}").search, joined(_hong_kong, _taiwan))

_written = matches(
    r"(?<![0-9A-Za-z])(?<!\d[.\-])(?P<item>(?!000|666|9\d\d)\d{3}(?P<by>[ \-])(?!00)\d{2}(?P=by)(?!0000)\d{4})(?!["
    r"0-9A-Za-z]|[.\-]\d)"
)
_named = matches(
    r"(?:\bSSN\b|\bSSN#|social[ \-]?security|soc\.? ?sec\.?|社会安全号|社安号)[^\d\n]{0,24}"
    r"(?P<item>(?!000|666|9\d\d)\d{3}[ .\-]?(?!00)\d{2}[ .\-]?(?!0000)\d{4})(?!\d)",
    flags=re.IGNORECASE,
)
ssn = only(re.compile(r"\d{3}[ .\-]?\d{2}[ .\-]?\d{4}").search, joined(_written, _named))
