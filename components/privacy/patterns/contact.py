"""E-mail addresses: as written, in URLs, JSON and HTML, and with "at" and "dot" in words."""

from __future__ import annotations

import re

from raypath.components.privacy.patterns.spans import joined, matches, only

_FILES = frozenset("png jpg jpeg gif svg webp js ts jsx tsx css scss json py md txt html xml yml yaml pdf zip".split())
"""Ends of file names such as icon@2x.png."""
_SIGN = "A-Za-z0-9\u00c0-\u024f"
_LOCAL = rf"[{_SIGN}_](?:[{_SIGN}_+\-%'.]{{0,63}}[{_SIGN}_+\-])?"
_LABEL = rf"[{_SIGN}](?:[{_SIGN}\-]{{0,62}}[{_SIGN}])?"
_CHINESE = r"[A-Za-z0-9\-\u4e00-\u9fff]{1,20}\.(?:中国|中國|公司|网络|網絡|香港|台湾|台灣|在线|中文网|网址|集团|商城)"
_END = r"(?:(?i:xn--)[A-Za-z0-9\-]{2,40}|[A-Za-z]{2,24})"
_AT = r"(?:@|\\u0040|%40|&#0*64;|&commat;)(?:\r?\n[ \t]*)?"
_DOMAIN = rf"(?:(?:{_LABEL}\.){{1,5}}{_END}(?![A-Za-z0-9])|{_CHINESE}|\[(?:\d{{1,3}}\.){{3}}\d{{1,3}}\])"
_AT_IN_BRACKETS = r"[\[({<]\s?(?:at|@|AT|At|艾特)\s?[\])}>]"
_DOT = r"(?:\s?[\[({<]\s?(?:dot|DOT|Dot|\.|点)\s?[\])}>]\s?|\.)"
_BEFORE = rf"(?<![{_SIGN}_+%.\-])"


def _is_address(match: re.Match[str]) -> bool:
    end = match["item"].rpartition(".")[2].lower()
    # git@github.com:team/project is no address of a person.
    is_remote = match["item"].startswith("git@") and match.string[match.end() : match.end() + 1] == ":"
    return end not in _FILES and not is_remote


_written = matches(rf"{_BEFORE}(?P<item>{_LOCAL}{_AT}{_DOMAIN})", _is_address)
_quoted = matches(rf"(?P<item>\"[^\"\s@]{{1,60}}\"@{_DOMAIN})")
_bracketed = matches(
    rf"{_BEFORE}(?P<item>{_LOCAL}\s?{_AT_IN_BRACKETS}\s?{_LABEL}(?:{_DOT}{_LABEL}){{0,3}}{_DOT}[A-Za-z]{{2,24}})"
)
_spelt = matches(
    r"(?<![\w.+\-])(?P<item>[a-z0-9_.+\-]{2,40} (?:at|AT) [a-z0-9\-]{2,40} (?:dot|DOT) [a-z]{2,10}(?: (?:dot"
    r"|DOT) [a-z]{2,3})?)\b"
)
_has_sign = re.compile(r"@|\\u0040|%40|&#0*64;|&commat;").search
_has_bracket = re.compile(_AT_IN_BRACKETS).search

email = joined(
    only(_has_sign, joined(_written, _quoted)),
    only(_has_bracket, _bracketed),
    only(lambda text: " dot " in text or " DOT " in text, _spelt),
)
