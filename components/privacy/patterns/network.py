"""IP and MAC addresses."""

from __future__ import annotations

import ipaddress
import re

from raypath.components.privacy.patterns.spans import alphanumeric, joined, matches, only

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_VERSION = re.compile(
    r"(?:\bv|ver(?:sion)?|section|chapter|clause|figure|table|"
    r"release|build|revision|firmware|版本|版|章|节|§)[ .:：#是]{0,3}$",
    re.IGNORECASE,
)


def _is_v4(match: re.Match[str]) -> bool:
    address = ipaddress.ip_address(match[0])
    before = match.string[max(match.start() - 12, 0) : match.start()]
    return not (address.is_loopback or address.is_unspecified or match[0] == "255.255.255.255") and not (
        _VERSION.search(before)
    )


def _is_v6(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match["item"])
    except ValueError:
        return False
    groups = [group for group in match["item"].split(":") if group]
    # ::add and a::b are names in C++; a time such as 12:30:45 has too few groups.
    written = len(groups) >= 3 or (len(groups) >= 2 and any(sign.isdigit() for sign in match["item"]))
    return written and not address.is_loopback and not address.is_unspecified


def _is_mac(match: re.Match[str]) -> bool:
    signs = alphanumeric(match["item"]).lower()
    return len(set(signs)) > 1


_v4 = matches(rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w]|\.\d|-\d)", _is_v4)
_v6 = matches(
    r"(?<![\w.])(?<![0-9A-Fa-f]:)(?<!::)(?P<item>(?:::|[0-9A-Fa-f]{1,4}:)(?:[0-9A-Fa-f]{0,4}:){0,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4}))(?![\w:])",
    _is_v6,
)
ip = joined(only(re.compile(r"\d\.\d+\.").search, _v4), only(re.compile(r"[0-9A-Fa-f]?:[0-9A-Fa-f]*:").search, _v6))
_separated = matches(
    r"(?<!\w)(?<![0-9A-Fa-f][:\-])(?P<item>[0-9A-Fa-f]{2}(?P<by>[:\-])(?:[0-9A-Fa-f]{2}(?P=by)){4}[0-9A-Fa-f]{2})(?![\w]"
    r"|[:\-][0-9A-Fa-f])",
    _is_mac,
)
_dotted = matches(r"(?<![\w.])(?P<item>[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![\w.])", _is_mac)
_named = matches(
    r"(?:\bmac|物理地址|网卡地址)(?:[ _\-]?(?:address|addr"
    r"|地址))?[\s\"':=是为]{0,4}(?P<item>[0-9A-F]{12})(?![0-9A-Za-z])",
    _is_mac,
    re.IGNORECASE,
)
mac = joined(
    only(re.compile(r"[0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-]").search, _separated),
    only(re.compile(r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.").search, _dotted),
    only(re.compile(r"mac|地址", re.IGNORECASE).search, _named),
)
