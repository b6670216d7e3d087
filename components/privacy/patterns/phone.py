"""Phone numbers: international, of China, North America and Europe as people write them, and others after a word."""

from __future__ import annotations

import re

from raypath.components.privacy.patterns.spans import joined, matches, only

_BY = r"(?:[ .\-/]|\s?[()]\s?| - |\r?\n[ \t]*)"
_EXTENSION = r"(?:[ ,;]{0,2}(?:ext\.?|extension|x|转|分机)[ .:]?\d{1,6})?"
_COUNTRY = (
    r"(?:1|7|2[07]|2[1-689]\d|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[7-9]\d|8[1246]"
    r"|8[058]\d|9[0-58]|9[679]\d)"
)
"""Country codes (ITU-T E.164)."""
_NOT_BEFORE = r"(?<![0-9A-Za-z_])(?<![A-Za-z]-)(?<!\d[.,\-/])(?<!\d [\-/] )(?<![$€£¥#])(?<![$€£¥] )"
_NOT_AFTER = r"(?![0-9A-Za-z_]|[.,\-/]\d)"
_REFERENCE = re.compile(
    r"(?:订单|单号|流水|快递|运单|编号|条码|批号|序列号|工单|合同号|账号|帐号|卡号|QQ|\border|invoice|tracking"
    r"|ticket|serial|sku|isbn|issn|"
    r"\bref(?:erence)?|\bcase|batch|\bpart|model|account|\bacct|version|\bitem|parcel|waybill|(?<![a-z])id)"
    r"(?:[ _\-]?(?:no|number|nr|id|code|号码?))?[\s.:：#=\"'是为]{0,5}$",
    re.IGNORECASE,
)
_CALLED = (
    r"(?:\btel(?:ephone|efon|éfono)?\b\.?|\bphone\b|\bmobile\b|\bcell(?:phone)?\b|\bhandy\b|\bfax\b|\bcall(?: me"
    r"| us| him| her)?\b|\bdial\b|"
    r"\bring\b|\bwhatsapp\b|\btext(?: me)?\b|\bsms\b|\bcontact\b|\breach(?: me"
    r"| us)?\b|手机|电话|手機|電話|座机|热线|传真|联系方式"
    r"|联系人?|致电|拨打|微信|号码)"
)


def _digits(text: str) -> int:
    return sum(sign.isdigit() for sign in text)


def _is_free(match: re.Match[str]) -> bool:
    """Return True unless it is a decimal number, or a word before it tells that it is another one."""
    return not re.fullmatch(r"\d+\.\d+", match["item"]) and not _REFERENCE.search(
        match.string[max(match.start("item") - 24, 0) : match.start("item")]
    )


def _is_international(match: re.Match[str]) -> bool:
    return ("+" in match["item"] or _is_free(match)) and 8 <= _digits(
        re.sub(r"ext.*|x\d.*|转.*|分机.*", "", match["item"])
    ) <= 16


def _is_called(match: re.Match[str]) -> bool:
    return 6 <= _digits(match["item"]) <= 15 and not re.fullmatch(r"(?:19|20)\d\d[-/.]\d\d?[-/.]\d\d?", match["item"])


def _is_grouped(match: re.Match[str]) -> bool:
    before = match.string[max(match.start("item") - 2, 0) : match.start("item")]
    # 100 000 000 000 is one number.
    is_part = bool(re.fullmatch(r"\d ", before)) and bool(re.fullmatch(r"\d{3}(?: \d{3})+", match["item"]))
    return 9 <= _digits(match["item"]) <= 12 and not is_part and _is_free(match)


_international = matches(
    rf"(?<![0-9A-Za-z_])(?<!\d[.,])(?P<item>\(?(?:\+|00|011[ \-]?) ?\(?{_COUNTRY}\)?(?:{_BY}{{0,2}}(?:\(0\){_BY}?)?\d)"
    rf"{{5,13}}{_EXTENSION})(?![0-9]|[.,]\d)",
    _is_international,
)
_chinese_mobile = matches(
    rf"{_NOT_BEFORE}(?P<item>(?:\(?(?:\+?86|0086)\)?[ \-]?)?(?:1[3-9]\d{_BY}?\d{{4}}{_BY}?\d{{4}}"
    rf"|1[3-9]\d{{2}}{_BY}\d{{3}}{_BY}\d{{4}}"
    rf"|1[3-9]\d{_BY}\d{{3}}{_BY}\d{{5}}|1[3-9]\d{_BY}\d{{3}}{_BY}\d{{3}}{_BY}\d{{2}})){_NOT_AFTER}",
    _is_free,
)
_chinese_line = matches(
    rf"{_NOT_BEFORE}(?P<item>(?:\(0\d{{2,3}}\)[ \-]?|0\d{{2,3}}[ \-])[1-9]\d{{2,3}}[ \-]?\d{{4}}(?:[ \-]?(?:转|-"
    rf"|ext\.?)[ ]?\d{{1,5}})?"
    rf"|0(?:10|2\d)[1-9]\d{{7}}|[48]00[ \-]\d{{3}}[ \-]\d{{4}}|[48]00[ \-]\d{{4}}[ \-]\d{{3}}){_NOT_AFTER}",
    _is_free,
)
_american = matches(
    rf"{_NOT_BEFORE}(?P<item>(?:1[ .\-]?)?(?:\([2-9]\d{{2}}\)[ \-.]?|[2-9]\d{{2}}(?:[ .\-/]"
    rf"| - ))[2-9]\d{{2}}(?:[ .\-]| - )\d{{4}}{_EXTENSION}){_NOT_AFTER}",
    _is_free,
)
_national = matches(
    # A zero and groups: 030 1234567, 01 23 45 67 89, 07700 900 123, (020) 7946 0018, 0171/1234567, 090-1234-5678
    rf"{_NOT_BEFORE}(?P<item>(?:\(0[1-9]\d{{0,4}}\)|0[1-9]\d{{0,4}})(?:(?:[ .\-/]| - "
    rf"|\s?/\s?)\d{{2,8}}){{1,4}}{_EXTENSION}){_NOT_AFTER}",
    _is_grouped,
)
_area_in_brackets = matches(rf"{_NOT_BEFORE}(?P<item>\(\d{{2,4}}\) ?\d{{3,5}}[ \-]\d{{4}}){_NOT_AFTER}", _is_grouped)
_indian = matches(rf"{_NOT_BEFORE}(?P<item>[6-9]\d{{4}}[ \-]\d{{5}}){_NOT_AFTER}", _is_free)
_called = matches(
    rf"{_CALLED}(?:[\s\"'*_:=#(\-]|号码?|是|为|number|no\.?|at|on|is|me|us|or|the office){{0,12}}?"
    rf"(?P<item>\+?\(?\d(?:{_BY}{{0,2}}\d){{5,14}}{_EXTENSION})(?![0-9A-Za-z])",
    _is_called,
    re.IGNORECASE,
)
_uri = matches(r"\b(?:tel|sms|callto|whatsapp):(?P<item>\+?[\d().\-]{6,20}\d)", _is_called)
_link = matches(r"\b(?:wa\.me/|phone=|tel=|mobile=)(?P<item>(?:\+|%2B)?\d{7,15})")

phone = only(
    re.compile(r"(?:\d[\s().\-/]{0,3}){6}").search,
    joined(
        _international,
        _chinese_mobile,
        _chinese_line,
        _american,
        _national,
        _area_in_brackets,
        _indian,
        only(re.compile(_CALLED, re.IGNORECASE).search, _called),
        only(lambda text: ":" in text, _uri),
        only(lambda text: "=" in text or "wa.me" in text, _link),
    ),
)
