"""Recogniser of personal data: ranges of a text by kind, without overlaps.

Structured items are found by compiled patterns and check digits, names by the models of `privacy/names`. Change VERSION
with whatever changes what is found: it goes with the datasets and the models.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.patterns import address, contact, documents, network, numbers, phone, secrets
from raypath.components.privacy.patterns.spans import Pattern, joined
from raypath.components.privacy.plain import plain

VERSION = 1
"""Version of the patterns and of how models are read."""
PATTERNS: dict[Kind, Pattern] = {
    Kind.SECRET: secrets.secret,
    Kind.EMAIL: contact.email,
    Kind.IBAN: numbers.iban,
    Kind.RESIDENT_ID: joined(numbers.resident_id, numbers.other_ids),
    Kind.CARD: numbers.card,
    Kind.SSN: numbers.ssn,
    Kind.PASSPORT: documents.passport,
    Kind.MAC: network.mac,
    Kind.IP: network.ip,
    Kind.BIRTH_DATE: documents.birth_date,
    Kind.PHONE: phone.phone,
    Kind.PLATE: documents.plate,
    Kind.ADDRESS: address.address,
}
"""Patterns by kind. Where two overlap, the earlier kind counts, of one kind the longer."""


@dataclass(frozen=True, order=True)
class Span:
    """Range of a text with personal data. end: after its last sign."""

    start: int
    end: int
    kind: Kind


def find(text: str, kinds: Collection[Kind] = tuple(PATTERNS), more: Sequence[Span] = ()) -> list[Span]:
    """Find personal data of these kinds in a text, in order.

    more: ranges that a model found; they count where no pattern has found something else.
    """
    source = plain(text)
    taken: list[Span] = []
    for kind, pattern in PATTERNS.items():
        if kind in kinds:
            found = sorted(set(pattern(source.text)), key=lambda each: (each[0] - each[1], each[0]))
            for start, end in found:
                add(taken, Span(*source.original(start, end), kind))
    for span in more:
        if span.kind in kinds:
            add(taken, span)
    return sorted(taken)


def add(taken: list[Span], new: Span) -> None:
    """Add a range unless it overlaps another."""
    if new.start < new.end and not any(new.start < each.end and each.start < new.end for each in taken):
        taken.append(new)
