"""Keys, tokens and passwords: by the prefixes of their issuers, and by the names they are assigned to."""

from __future__ import annotations

import math
import re

from raypath.components.privacy.patterns.spans import joined, matches, only

_ISSUED = (
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
    r"|gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_\-.]{20,64}"
    r"|xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9\-]{10,250}|xapp-\d-[A-Za-z0-9\-]{10,250}"
    r"|[srp]k_(?:live|test)_[A-Za-z0-9]{16,247}|whsec_[A-Za-z0-9]{32,}"
    r"|sk-(?:ant-[a-z0-9]+-|proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_\-]{20,200}"
    r"|AIza[A-Za-z0-9_\-]{35}|ya29\.[A-Za-z0-9_\-]{20,}|GOCSPX-[A-Za-z0-9_\-]{28}"
    r"|hf_[A-Za-z0-9]{30,40}|npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_\-]{50,}|gsk_[A-Za-z0-9]{40,}"
    r"|SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}|(?:SK|AC)[0-9a-f]{32}|key-[0-9a-f]{32}"
    r"|do[opr]_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}|LTAI[A-Za-z0-9]{12,24}|AKID[A-Za-z0-9]{32}|AKLT[A-Za-z0-9_\-]{40,60}"
    r"|hv[sbr]\.[A-Za-z0-9_\-]{24,}|rp_[A-Za-z0-9]{6,32}_[A-Za-z0-9_\-]{40,64}|shp(?:at|ss|ca|pa)_[0-9a-fA-F]{32}"
    r"|\d{8,10}:AA[A-Za-z0-9_\-]{33}|eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{10,}"
)
_HINT = re.compile(
    r"A3T|AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat|gl\w{2,4}-|xox|xapp|k_live|k_test|whsec|sk-|AIza|ya29|GOCSPX"
    r"|hf_|npm_|pypi-|gsk_|SG\."
    r"|SK|AC|key-|_v1_|dapi|LTAI|AKID|AKLT|hv[sbr]\.|rp_|shp|:AA|eyJ"
)
_ASSIGNED = re.compile(r"key|secret|token|passw|pwd|bearer|credential|passphrase|密码|口令|密钥|令牌", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"[*x.\-_•]+|<.*|\$[{(].*|\{\{.*|%\w+%|(?:your|my|the|example|changeme|none|null|true|false|todo|redacted"
    r"|undefined|required|optional|os\.|env|process\.|get|string|str|int)\b.*"
    r"|your[_\-].*|[a-z_]+\(.*|[a-z_.]+\.[a-z_]+|\[.*",
    re.IGNORECASE,
)


def _is_random(match: re.Match[str]) -> bool:
    """Return True for a value with letters and digits whose signs are spread as those of a random one."""
    value = match["item"]
    if _PLACEHOLDER.fullmatch(value) or not re.search(r"\d", value) or not re.search(r"[A-Za-z]", value):
        return False
    return _entropy(value) >= 2.8


def _is_password(match: re.Match[str]) -> bool:
    value = match["item"]
    mixed = sum(bool(re.search(signs, value)) for signs in (r"[a-z]", r"[A-Z]", r"\d", r"[^A-Za-z0-9]"))
    return not _PLACEHOLDER.fullmatch(value) and (mixed >= 2 or value.isdigit())


def _entropy(value: str) -> float:
    shares = [value.count(sign) / len(value) for sign in set(value)]
    return -sum(share * math.log2(share) for share in shares)


_issued = matches(rf"(?<![A-Za-z0-9_\-])(?P<item>{_ISSUED})(?![A-Za-z0-9_])")
_key_block = matches(
    r"-----BEGIN (?:[A-Z0-9 ]{0,30})PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,16000}?(?:-----END (?:[A-Z0-9 ]{0,30})PRIV"
    r"ATE KEY(?: BLOCK)?-----|\Z)"
)
_assigned = matches(
    r"(?:api|access|auth|secret|private|client|account|encryption|signing|storage|service|app|shared)?[ _\-]?"
    r"(?:key|secret|token|credential|密钥|令牌)s?(?:[ _\-]?(?:id|value))?[\"']?\s{0,2}(?:[:=]{1,2}>?|：|是|为"
    r"|\bis\b)\s{0,2}[\"']?"
    r"(?:Bearer )?(?P<item>[A-Za-z0-9_\-+/=.~]{16,200})",
    _is_random,
    re.IGNORECASE,
)
_bearer = matches(r"\b(?:Bearer|Basic|token) (?P<item>[A-Za-z0-9_\-+/=.~]{20,2000})", _is_random)
_password = matches(
    r"(?:pass(?:word|wd|phrase|code)?|pwd|密码|口令)[\"']?\s{0,2}(?:[:=]{1,2}>?|：|是|为"
    r"|\bis\b)\s{0,2}[\"'`]?(?P<item>[^\s\"'`,;，。；<>&]{6,80})",
    _is_password,
    re.IGNORECASE,
)
_in_url = matches(
    r"\b[a-z][a-z0-9+.\-]{1,20}://[^\s:/@\"']{0,60}:(?P<item>[^\s/@\"']{3,100})@(?=[\w.\-\[])", _is_password
)
secret = joined(
    only(_HINT.search, _issued),
    only(lambda text: "PRIVATE KEY" in text, _key_block),
    only(_ASSIGNED.search, joined(_assigned, _bearer, _password)),
    only(lambda text: "://" in text, _in_url),
)
