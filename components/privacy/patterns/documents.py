"""Passports, number plates and dates of birth, for which words around them tell what a number is."""

from __future__ import annotations

import re

from raypath.components.privacy import checksums
from raypath.components.privacy.patterns.spans import joined, matches, only

_IS = r"[\s\"'*_:=#(.,\-]{0,6}(?:(?:number|num|no|nr|id|is|was|号码|号碼|编号|号|是|为)[\s\"'*_:=#.\-]{0,5}){0,3}"
_PASSPORT_WORD = r"(?:passports?|pass|passeport|reisepass(?:nummer)?|pasaporte|护照|護照)"
_passport_named = matches(
    rf"(?:{_PASSPORT_WORD}){_IS}(?P<item>(?=[A-Z0-9 ]*\d{{4}})[A-Z]{{0,2}} ?\d[A-Z0-9]{{5,8}}"
    rf"|[A-Z]\d{{2}}[A-Z0-9]{{6}}|[A-Z0-9]{{9}}(?<=\d))(?![0-9A-Za-z])",
    flags=re.IGNORECASE,
)
_zone = matches(
    r"(?<![A-Z0-9<])(?P<item>[A-Z0-9<]{9}\d[A-Z<]{3}\d{7}[MFX<]\d{7}[A-Z0-9<]{14}[0-9<]\d)(?![A-Z0-9<])",
    lambda match: checksums.machine_readable(match["item"]),
)
_zone_names = matches(r"(?<![A-Z0-9<])(?P<item>P[A-Z<][A-Z]{3}[A-Z<]{39})(?![A-Z0-9<])")
passport = joined(
    only(re.compile(r"pass|pasaporte|护照|護照", re.IGNORECASE).search, _passport_named),
    only(lambda text: "<" in text, joined(_zone, _zone_names)),
)

_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领"
_chinese_plate = matches(
    rf"(?P<item>[{_PROVINCE}][A-HJ-NP-Z][\s·•‧・.\-]?(?=[A-Z0-9]*\d)[A-HJ-NP-Z0-9]{{4,5}}[A-HJ-NP-Z0-9挂学警港澳])(?![A-"
    rf"Za-z0-9])"
)
_PLATE_WORD = (
    r"(?:(?:licen[cs]e|number|registration|reg|vehicle|car|van|truck)[ \-]?plates?|plate (?:number|no\.?|#)|\bplates?|"
    r"(?:car|vehicle) (?:registration|reg)|registration(?: (?:number|mark|no\.?))?|\breg(?: no\.?)?|"
    r"kennzeichen|immatriculation|immatriculée?|matr[ií]cula|targa|车牌号?码?|牌照)"
)
_plate_named = matches(
    rf"{_PLATE_WORD}[\s\"':=#(]{{0,4}}(?:(?:is|was|reads|number|no\.?|号|是|为)[\s\"':=#]{{0,3}}){{0,2}}"
    r"(?-i:(?P<item>(?=[A-ZÄÖÜ0-9 \-·]{0,8}\d)[A-ZÄÖÜ0-9]{1,4}(?:[ \-·][A-ZÄÖÜ0-9]{1,4}){1,2}"
    r"|(?=[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-Z0-9]{5,8}))(?![0-9A-Za-z])",
    flags=re.IGNORECASE,
)
_british_plate = matches(r"(?<![0-9A-Za-z\-])(?P<item>[A-HJ-PR-Y][A-HJ-PR-Y]\d\d [A-HJ-PR-Z]{3})(?![0-9A-Za-z\-])")
_french_plate = matches(r"(?<![0-9A-Za-z\-])(?P<item>[A-HJ-NP-TV-Z]{2}-\d{3}-[A-HJ-NP-TV-Z]{2})(?![0-9A-Za-z\-])")
plate = joined(
    only(re.compile(rf"[{_PROVINCE}][A-HJ-NP-Z]").search, _chinese_plate),
    only(re.compile(r"plate|reg|kennzeichen|matr|targa|车牌|牌照", re.IGNORECASE).search, _plate_named),
    only(re.compile(r"[A-Z]{2}-?\d{2}").search, joined(_british_plate, _french_plate)),
)

_MONTH = (
    r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|f[eé]vr?(?:ier)?|mar(?:ch|s)?|märz|apr(?:il)?|avr(?:il)?|may|mai"
    r"|june?|juin|juni|"
    r"july?|juli|juillet|aug(?:ust)?|ao[uû]t|sept?(?:ember|embre)?|o[ck]t(?:ober|obre)?|nov(?:ember|embre)?"
    r"|de[cz](?:ember)?|d[eé]c(?:embre)?)\.?"
)
_CN_DIGIT = "[〇○零一二三四五六七八九十廿卅]"
_DATE = (
    r"(?:\d{4}\s?[\-/.]\s?\d{1,2}\s?[\-/.]\s?\d{1,2}|\d{1,2}\s?[\-/.]\s?\d{1,2}\s?[\-/.]\s?(?:\d{4}|\d{2})(?!\d)"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\.?[ \-](?:of )?{_MONTH},?[ \-]\d{{4}}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? ?\d{{4}}"
    r"|(?:1[89]|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)"
    rf"|\d{{4}}\s?年\s?\d{{1,2}}\s?月\s?\d{{1,2}}\s?[日号]?|{_CN_DIGIT}{{2,4}}年{_CN_DIGIT}{{1,2}}月{_CN_DIGIT}{{1,3}}[日号]?)"
)
_BORN = (
    r"(?:\bborn(?: on)?(?: the)?|\bborn in [A-Z][\w ,]{1,30}? on(?: the)?|date[ _\-]?of[ _\-]?birth"
    r"|birth[ _\-]?date|birth[ _\-]?day|\bd\.?o\.?b\b\.?|\bb\."
    r"|geboren(?: am)?|geburtsdatum|\bn[ée]e? le|date de naissance|nacid[oa] el|fecha de nacimiento"
    r"|出生(?:日期|年月日?|时间|于|在)?|生日|生于|诞辰|生辰)"
)
_born_before = matches(
    rf"{_BORN}[\s\"'*_:=,(]{{0,5}}(?:(?:is|was|was on|on|是|为|在)[\s\"':=]{{0,3}})?(?P<item>{_DATE})",
    flags=re.IGNORECASE,
)
_born_after = matches(
    rf"(?P<item>{_DATE})\s?(?:出生|生(?![产效成活日])|诞生|\(?(?:DOB|date of birth)\b)", flags=re.IGNORECASE
)
birth_date = only(
    re.compile(
        r"born|birth|d\.?o\.?b|\bb\.|gebor|geburt|n[ée]e? le|naissance|nacid|nacimiento|生", re.IGNORECASE
    ).search,
    joined(_born_before, _born_after),
)
