"""Postal addresses that have a street and a number; the models of names find parts of others."""

from __future__ import annotations

import re

from raypath.components.privacy.patterns.spans import joined, matches, only

_STREET = (
    r"(?:street|str\.?|st\.?|avenue|ave\.?|av\.?|road|rd\.?|boulevard|blvd\.?|lane|ln\.?|drive|dr\.?|court|ct\.?"
    r"|place|pl\.?|square|sq\.?|terrace|way|"
    r"parkway|pkwy\.?|highway|hwy\.?|crescent|close|gardens?|mews|row|hill)"
)
_UNIT = r"(?:,? (?i:apt\.?|apartment|unit|suite|ste\.?|flat|floor|room|#) ?#?[A-Z0-9\-]{1,6})?"
_TOWN = (
    r"(?:,? (?:[A-Z][a-zA-Z.'\-]+ ?){1,3},? (?:[A-Z]{2},? \d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z0-9]? ?\d[A-Z]{2}|\d{5})"
    r"|, [A-Z][a-z]+(?: [A-Z][a-z]+)?(?=\s*(?:[,.;:!?\n\"')]|$| and | in | on | but )))?"
)
_english = matches(
    rf"(?<![\w.,/\-])(?P<item>\d{{1,5}}[A-Za-z]?(?:-\d{{1,4}})? (?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.? )?"
    rf"(?:(?:[A-Z][a-zA-Z'\-]+|\d{{1,3}}(?:st|nd|rd|th)) ){{1,3}}(?i:{_STREET})\b\.?{_UNIT}{_TOWN})"
)
_box = matches(r"(?P<item>\bP\.? ?O\.? Box \d{1,6})", flags=re.IGNORECASE)
_german = matches(
    r"(?<!\w)(?P<item>[A-ZÄÖÜ][a-zäöüß\-]+(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|ufer"
    r"|damm) \d{1,4} ?[a-z]?(?:, \d{5} [A-ZÄÖÜ][a-zäöüß]+)?)(?!\w)"
)
_AREA = r"[\u4e00-\u9fff]{2,8}?(?:省|自治区|特别行政区|市|自治州|地区|盟|区|县|旗|镇|乡|街道|开发区|新区)"
_chinese = matches(
    rf"(?P<item>(?:{_AREA}){{0,5}}[\u4e00-\u9fffA-Za-z0-9]{{1,12}}?(?:大道|大街|路|街|巷|弄|胡同|里|村"
    rf"|屯)\s?[0-9一二三四五六七八九十百甲乙\-]{{1,7}}\s?(?:号院|号|弄|组|巷|队)"
    r"(?:[\u4e00-\u9fffA-Za-z0-9\-]{0,16}?(?:号楼|栋|幢|座|单元|楼|层|室|户|号)){0,5}(?:(?<=单元|号楼)\d{2,4}|(?<=[栋幢座层])\d{2,4})?)"
)
address = joined(
    only(re.compile(rf" (?:{_STREET})\b", re.IGNORECASE).search, _english),
    only(re.compile(r"box", re.IGNORECASE).search, _box),
    only(re.compile(r"(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|ufer|damm) \d").search, _german),
    only(re.compile(r"[0-9一二三四五六七八九十](?:号|弄|组|室)").search, _chinese),
)
