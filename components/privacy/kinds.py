"""Kinds of personal data."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Kind of personal data, by which it is chosen, counted and replaced."""

    SECRET = "secret"
    EMAIL = "email"
    IBAN = "iban"
    RESIDENT_ID = "resident_id"
    CARD = "card"
    SSN = "ssn"
    PASSPORT = "passport"
    MAC = "mac"
    IP = "ip"
    PHONE = "phone"
    BIRTH_DATE = "birth_date"
    PLATE = "plate"
    ADDRESS = "address"
    NAME = "name"
    ORGANISATION = "organisation"

    @property
    def tag(self) -> str:
        """Text that stands in its place, such as <EMAIL>."""
        return f"<{self.name}>"


WORDS = {
    Kind.SECRET: "key, token or password",
    Kind.EMAIL: "e-mail address",
    Kind.IBAN: "IBAN",
    Kind.RESIDENT_ID: "Chinese resident ID",
    Kind.CARD: "card number",
    Kind.SSN: "US social security number",
    Kind.PASSPORT: "passport number",
    Kind.MAC: "MAC address",
    Kind.IP: "IP address",
    Kind.PHONE: "phone number",
    Kind.BIRTH_DATE: "date of birth",
    Kind.PLATE: "number plate",
    Kind.ADDRESS: "postal address",
    Kind.NAME: "name of a person",
    Kind.ORGANISATION: "organisation",
}
"""Words for a report."""
DEFAULT = tuple(kind for kind in Kind if kind is not Kind.ORGANISATION)
"""Kinds that are replaced where none are named."""
