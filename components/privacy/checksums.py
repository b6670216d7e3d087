"""Check digits of numbers, by their standards. Arguments are plain: without spaces, dashes and other separators."""

from __future__ import annotations

import re
from datetime import date

IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27"
        "GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        "MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28"
        "TL23TN24TR26UA29VA22VG24XK20YE30",
    )
}
"""Lengths of IBANs by country (ISO 13616)."""
_CARDS = re.compile(
    r"4\d{12}(?:\d{3}(?:\d{3})?)?"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12}(?:\d{3})?"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}(?:\d{3})?"  # JCB
    r"|(?:62|81)\d{14,17}"  # UnionPay
    r"|220[0-4]\d{12}"  # Mir
    r"|(?:60|82|508)\d{13,14}"  # RuPay
    r"|(?:50|5[6-9]|6[0-9])\d{10,17}"  # Maestro
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()
)


def luhn(digits: str) -> bool:
    """Check the last digit by Luhn's formula (ISO/IEC 7812-1)."""
    doubled = [int(d) if n % 2 == 0 else sum(divmod(2 * int(d), 10)) for n, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def card(digits: str) -> bool:
    """Check the issuer's digits and length, and Luhn's check digit."""
    return bool(_CARDS.fullmatch(digits)) and len(set(digits)) > 1 and luhn(digits)


def iban(text: str) -> bool:
    """Check the length for the country and the remainder by 97 (ISO 7064)."""
    text = text.upper()
    if len(text) != IBAN_LENGTHS.get(text[:2]) or not text[2:4].isdigit():
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def resident_id(text: str) -> bool:
    """Check province, date of birth and check digit of a Chinese resident ID of 18 signs (GB 11643)."""
    if len(text) != 18 or not text[:17].isdigit() or text[:2] not in _PROVINCES or not is_date(text[6:14]):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text, _WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


def hong_kong_id(letters: str, digits: str, check: str) -> bool:
    """Check a Hong Kong identity card: one or two letters, six digits, a check digit."""
    values = [ord(sign) - 55 for sign in letters.rjust(2)] if len(letters) == 2 else [36, ord(letters) - 55]
    total = sum(w * v for w, v in zip(range(9, 1, -1), [*values, *map(int, digits)], strict=True))
    return "0123456789A"[-total % 11] == check.upper()


def taiwan_id(text: str) -> bool:
    """Check a Taiwanese identity card: a letter and nine digits."""
    number = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(text[0]) + 10
    values = [number // 10, number % 10, *map(int, text[1:])]
    return sum(w * v for w, v in zip((1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), values, strict=True)) % 10 == 0


def machine_readable(line: str) -> bool:
    """Check number, dates and line of the second line of a passport's machine-readable zone (ICAO 9303, TD3)."""
    parts = ((line[:9], line[9]), (line[13:19], line[19]), (line[21:27], line[27]))
    whole = line[:10] + line[13:20] + line[21:43]
    return all(_icao(part) == check for part, check in (*parts, (whole, line[43])))


def _icao(part: str) -> str:
    values = [0 if sign == "<" else int(sign, 36) for sign in part]
    return str(sum(value * (7, 3, 1)[n % 3] for n, value in enumerate(values)) % 10)


def is_date(text: str) -> bool:
    """Return True for a date of 1850 to 2099 as YYYYMMDD."""
    try:
        return 1850 <= date(int(text[:4]), int(text[4:6]), int(text[6:])).year <= 2099
    except ValueError:
        return False
