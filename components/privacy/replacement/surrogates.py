"""Surrogates: made-up data of the same kind and form, drawn from the HMAC of the original.

Names come from lists of common ones, addresses of e-mail end in example.com, IP addresses are of ranges for examples
(RFC 5737, RFC 3849), other items keep their separators and have other letters and digits, whose check digits are wrong
as a rule.
"""

from __future__ import annotations

import random

from raypath.components.privacy.kinds import Kind

_FIRST = (
    "Alex Anna Ben Carla Daniel Diana Elena Emil Eva Felix Frank Grace Hanna Hugo Ida Ivan Jonas Julia Karl Lara L"
    "eo Lina "
    "Marc Maria Max Mia Nina Noah Olga Oscar Paul Petra Rosa Ruth Sam Sara Simon Sofia Theo Tina Tom Vera Victor Zoe"
).split()
_LAST = (
    "Adler Baker Becker Bell Brandt Brooks Clark Cole Cook Dean Dixon Ellis Evans Fischer Ford Fox Frost Gibson Gr"
    "aham Grant "
    "Hale Hart Hayes Holt Hunt Keller Kent King Lang Lowe Marsh Miles Moore Nash Novak Page Parker Reed Rivers Ros"
    "si Shaw "
    "Silva Stone Vogel Walsh Ward Webb Weber West Wolf Wood York Young Zeller"
).split()
_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
_GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚文辉玲红云建国华宁安乐晨阳雪梅思雨佳欣子轩浩然"
_STREETS = (
    "Alder Birch Cedar Elm Garden Hill Lake Maple Meadow Mill Oak Park Pine River School Spring Station Willow".split()
)
_ROADS = ("东风", "和平", "建设", "解放", "胜利", "人民", "文化", "新华", "幸福", "长江")
_FIRMS = (
    "Alba Borealis Cobalt Delphi Ember Fjord Granite Helix Indigo Juniper Krypton Lumen Meridian Nimbus Orchid".split()
)


def surrogate(kind: Kind, item: str, digest: bytes) -> str:
    """Return the surrogate of an item. digest: HMAC of its canonical form."""
    rng = random.Random(digest)
    chinese = any("\u4e00" <= sign <= "\u9fff" for sign in item)
    if kind is Kind.NAME:
        if chinese:
            return rng.choice(_SURNAMES) + "".join(rng.choices(_GIVEN, k=2 if len(item) > 2 else 1))
        first = rng.choice(_FIRST)
        return f"{first} {rng.choice(_LAST)}" if " " in item.strip() else first
    if kind is Kind.EMAIL:
        return f"{rng.choice(_FIRST).lower()}.{digest.hex()[:8]}@example.com"
    if kind is Kind.IP:
        if ":" in item:
            return f"2001:db8::{rng.randrange(1, 1 << 16):x}:{rng.randrange(1, 1 << 16):x}"
        return f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(1, 255)}"
    if kind is Kind.ADDRESS:
        number = rng.randrange(1, 400)
        return f"{rng.choice(_ROADS)}路{number}号" if chinese else f"{number} {rng.choice(_STREETS)} Street"
    if kind is Kind.ORGANISATION:
        return f"{rng.choice(_ROADS)}公司" if chinese else f"{rng.choice(_FIRMS)} {rng.choice(_FIRMS)} Ltd"
    if kind is Kind.BIRTH_DATE:
        return f"{rng.randrange(1940, 2006)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    if kind is Kind.SECRET:
        return Kind.SECRET.tag
    return "".join(_other(sign, rng) for sign in item)


def _other(sign: str, rng: random.Random) -> str:
    if sign.isdigit():
        return str(rng.randrange(10))
    if sign.isascii() and sign.isalpha():
        return rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ" if sign.isupper() else "abcdefghjkmnpqrstuvwxyz")
    return sign
