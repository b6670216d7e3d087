"""Items and look-alikes of the made-up texts."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable

from tests.components.privacy import made_up_words as words

Make = Callable[[random.Random], str]
UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits


def digits(rng: random.Random, number: int, first: str = DIGITS) -> str:
    return rng.choice(first) + "".join(rng.choices(DIGITS, k=number - 1)) if number else ""


def shaped(rng: random.Random, shape: str) -> str:
    """Fill a shape: # a digit, N one of 2-9, A a letter, a a small letter."""
    signs = {"#": DIGITS, "N": "23456789", "A": "ABCDEFGHJKLMNPRSTUVXY", "a": LOWER}
    return "".join(rng.choice(signs[sign]) if sign in signs else sign for sign in shape)


def one_of(rng: random.Random, forms: str) -> str:
    """Choose one of several forms, which are separated by bars."""
    return rng.choice(forms.split("|"))


def full_width(text: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if sign.isdigit() else sign for sign in text)


def luhn_digit(number: str) -> str:
    total = 0
    for n, sign in enumerate(reversed(number)):
        value = int(sign) * (2 if n % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def grouped(number: str, sizes: tuple[int, ...], by: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return by.join([*parts, number[at:]] if number[at:] else parts)


def card(rng: random.Random) -> str:
    prefix, length = rng.choice(
        [
            ("4", 16),
            ("51", 16),
            ("55", 16),
            ("2223", 16),
            ("34", 15),
            ("37", 15),
            ("6011", 16),
            ("3530", 16),
            ("622848", 19),
            ("621226", 19),
            ("625", 16),
            ("36", 14),
            ("4", 16),
        ]
    )
    number = prefix + digits(rng, length - len(prefix) - 1)
    number += luhn_digit(number)
    by = rng.choice([" ", "-", "", " ", ".", "\n" if rng.random() < 0.2 else " "])
    return grouped(number, (4, 6) if length == 15 else (4, 6, 4) if length == 14 else (4, 4, 4, 4), by)


def iban(rng: random.Random) -> str:
    country, shape = rng.choice(
        [
            ("DE", "#" * 18),
            ("FR", "#" * 10 + "A" * 2 + "#" * 11),
            ("GB", "AAAA" + "#" * 14),
            ("NL", "AAAA" + "#" * 10),
            ("ES", "#" * 20),
            ("IT", "A" + "#" * 22),
            ("BE", "#" * 12),
            ("PL", "#" * 24),
            ("CH", "#" * 17),
            ("NO", "#" * 11),
            ("MT", "AAAA" + "#" * 5 + "A" * 18),
        ]
    )
    account = shaped(rng, shape)
    value = int("".join(str(int(sign, 36)) for sign in account + country + "00"))
    made = f"{country}{98 - value % 97:02}{account}"
    form = rng.random()
    if form < 0.45:
        return grouped(made, (4,) * (len(made) // 4), " ")
    if form < 0.55:
        return grouped(made, (4,) * (len(made) // 4), "-")
    return made.lower() if form < 0.62 else made


def resident_id(rng: random.Random) -> str:
    area = one_of(
        rng,
        "110105|310101|440305|330106|510104|420106|320102|610113|210202|500103",
    )
    born = f"{rng.randint(1945, 2012)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    body = area + born + digits(rng, 3)
    total = sum(int(d) * w for d, w in zip(body, (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), strict=True))
    made = body + "10X98765432"[total % 11]
    form = rng.random()
    if form < 0.12:
        return f"{made[:6]} {made[6:14]} {made[14:]}"
    if form < 0.2:
        return f"{made[:6]}-{made[6:14]}-{made[14:]}"
    if form < 0.3:
        return full_width(made)
    return made.lower() if form < 0.4 else made


def ssn(rng: random.Random) -> str:
    area = f"{rng.choice([n for n in range(1, 900) if n != 666]):03}"
    by = rng.choice(["-", "-", " ", "\u2013"])
    return f"{area}{by}{rng.randint(1, 99):02}{by}{rng.randint(1, 9999):04}"


def ssn_plain(rng: random.Random) -> str:
    return "".join(sign for sign in ssn(rng) if sign.isdigit())


def ip(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return ".".join(str(rng.randint(1, 254)) for _ in range(4))
    groups = [f"{rng.randrange(1, 1 << 16):x}" for _ in range(8)]
    if rng.random() < 0.5:
        return ":".join(["2001", "db8", *groups[2:]])
    return (
        f"2a02:{groups[0]}:{groups[1]}::{groups[2]}"
        if rng.random() < 0.5
        else f"fe80::{groups[0]}:{groups[1][:2]}ff:fe{groups[2][:2]}:{groups[3]}"
    )


def mac(rng: random.Random) -> str:
    pairs = [f"{rng.randrange(256):02x}" for _ in range(6)]
    form = rng.random()
    if form < 0.2:
        joined = "".join(pairs)
        return f"{joined[:4]}.{joined[4:8]}.{joined[8:]}"
    made = (":" if form < 0.7 else "-").join(pairs)
    return made.upper() if rng.random() < 0.5 else made


def local_part(rng: random.Random) -> str:
    first, last = rng.choice(words.FIRST).lower(), rng.choice(words.LAST).lower().replace("'", "").replace(" ", "")
    return one_of(
        rng,
        f"{first}.{last}|{first}_{last}{rng.randint(1, 99)}|{first[0]}{last}|{first}+news|{last}-{first}|"
        f"{rng.randint(10**6, 10**9)}|{first}{rng.randint(1960, 2010)}|{first}.{last}.{rng.choice(LOWER)}",
    )


def domain(rng: random.Random) -> str:
    return one_of(
        rng,
        "gmail.com|qq.com|163.com|outlook.com|web.de|mail.ru|company.co.uk|uni-muenchen.de|foo.museum|"
        "acme.technology|mail.example.photography|x.io|dept.cs.univ.edu|startup.ai|sina.com.cn|yahoo.co.jp|"
        "münchen.de|xn--bcher-kva.example|naver.com|proton.me|a-b.org|library.museum|shop.xn--p1ai",
    )


def email(rng: random.Random) -> str:
    made = f"{local_part(rng)}@{domain(rng)}"
    return made.upper() if rng.random() < 0.05 else made.replace("@", "＠") if rng.random() < 0.05 else made


def email_url(rng: random.Random) -> str:
    return email(rng).replace("@", "%40")


def email_spelt(rng: random.Random) -> str:
    name, host = local_part(rng), rng.choice(["gmail.com", "qq.com", "web.de", "company.co.uk"])
    at, dot = rng.choice([(" [at] ", "."), (" (at) ", " (dot) "), ("(at)", "."), ("[AT]", "[DOT]"), (" at ", " dot ")])
    return name + at + host.replace(".", dot)


def phone_en(rng: random.Random) -> str:
    """Numbers of several countries as they are written there, and internationally."""
    shape = one_of(
        rng,
        "(N##) N##-####|N##-N##-####|N##.N##.####|+1 N## N## ####|+1-N##-N##-####|1-N##-N##-####|+1N##N######|"
        "(N##)N##-####|+1 (N##) N##-####|N## N## ####|N##-N##-#### ext. ##|(N##) N##-#### x###|"
        "+44 20 7### ####|020 7### ####|07700 900###|+44 7700 900 ###|+44 (0)20 7### ####|01632 960###|"
        "+49 30 #######|+49 (0)30 ### ###-#|030 ########|0171 #######|0171/#######|+49 171 #######|"
        "+33 1 ## ## ## ##|01 ## ## ## ##|06.##.##.##.##|+33 6 ## ## ## ##|0033 1 ## ## ## ##|+34 6## ### ###|"
        "+39 06 #### ####|+31 6 ########|+41 7# ### ## ##|+46 70 ### ## ##|+48 5## ### ###|+91 9N### #####|"
        "9N### #####|+81 90-####-####|090-####-####|+61 4## ### ###|04## ### ###|+55 (11) #####-####|"
        "(11) #####-####|+86 13# #### ####|+852 #### ####|+65 #### ####|+7 (###) ###-##-##|00 44 20 7### ####|"
        "011 44 20 7### ####|+358 40 ### ####|+420 6## ### ###|+971 50 ### ####",
    )
    return shaped(rng, shape)


def phone_zh(rng: random.Random) -> str:
    shape = one_of(
        rng,
        "13#########|15#########|18#########|13# #### ####|138-####-####|138#-###-####|+8613#########|"
        "+86 13# #### ####|86-13#########|(+86)13#########|0086 13#########|+86-138-####-####|177########|"
        "010-6#######|(010)6#######|021 5#######|0755-N#######|0571-N#######-###|400-###-####|"
        "+86 10 6### ####|13# ### #####|+852 #### ####|0755-N### ####|800-###-####",
    )
    made = shaped(rng, shape)
    return full_width(made) if rng.random() < 0.1 else made


def phone_link(rng: random.Random) -> str:
    return rng.choice(["+", ""]) + shaped(rng, rng.choice(["1N##N######", "8613#########", "447700900###"]))


def passport_en(rng: random.Random) -> str:
    return shaped(
        rng,
        one_of(
            rng,
            "A########|#########|C01X##T##|AA#######|##AA#####|L#######",
        ),
    )


def passport_zh(rng: random.Random) -> str:
    return shaped(
        rng,
        one_of(
            rng,
            "E########|EA#######|G########|EJ#######|e########",
        ),
    ).upper()


def _icao(part: str) -> str:
    values = [0 if sign == "<" else int(sign, 36) for sign in part]
    return str(sum(value * (7, 3, 1)[n % 3] for n, value in enumerate(values)) % 10)


def passport_zone(rng: random.Random) -> str:
    number = shaped(rng, "A########")
    born, until = (
        f"{rng.randint(50, 99)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}",
        f"3{rng.randint(0, 9)}{rng.randint(1, 12):02}15",
    )
    head = number + _icao(number)
    tail = born + _icao(born) + rng.choice("MF") + until + _icao(until) + "<" * 14 + "0"
    whole = head + tail[:7] + tail[8:]
    return head + rng.choice(["USA", "GBR", "CHN", "D<<"]) + tail + _icao(whole)


def plate_zh(rng: random.Random) -> str:
    province, letter = rng.choice("京沪粤浙苏川鄂湘鲁豫"), rng.choice("ABCDEFGHJ")
    body = rng.choice(
        [
            shaped(rng, "#####"),
            shaped(rng, "A####"),
            shaped(rng, "#A###"),
            shaped(rng, "###AA"),
            shaped(rng, "D#####"),
            shaped(rng, "F#####"),
        ]
    )
    return (
        province
        + letter
        + one_of(
            rng,
            "|·| ||-",
        )
        + body
    )


def plate_named(rng: random.Random) -> str:
    return shaped(
        rng,
        one_of(
            rng,
            "AAA ####|#AAA###|AAA-####|AA-###-AA|A-AA ###|AA-A ####|#### AAA|AA## AAA|AAA ###",
        ),
    )


def plate_en(rng: random.Random) -> str:
    return (
        shaped(rng, rng.choice(["AA## AAA", "AA-###-AA"]))
        .replace("Q", "P")
        .replace("I", "J")
        .replace("O", "P")
        .replace("U", "V")
        .replace("Z", "Y")
    )


MONTHS = "January February March April May June July August September October November December".split()


def born_en(rng: random.Random) -> str:
    y, m, d = rng.randint(1940, 2012), rng.randint(1, 12), rng.randint(1, 28)
    suffix = "st" if d in (1, 21) else "nd" if d in (2, 22) else "rd" if d in (3, 23) else "th"
    return one_of(
        rng,
        f"{y}-{m:02}-{d:02}|{d:02}/{m:02}/{y}|{m}/{d}/{y}|{d}.{m}.{y}|{MONTHS[m - 1]} {d}, {y}|"
        f"{d} {MONTHS[m - 1]} {y}|{d}{suffix} of {MONTHS[m - 1]} {y}|{MONTHS[m - 1][:3]} {d} {y}|"
        f"{d} {MONTHS[m - 1][:3]}. {y}|{y}/{m}/{d}|{d:02}-{m:02}-{y % 100:02}|{MONTHS[m - 1]} {d}{suffix}, {y}|"
        f"{d}-{MONTHS[m - 1][:3]}-{y}|{y}{m:02}{d:02}",
    )


def born_zh(rng: random.Random) -> str:
    y, m, d = rng.randint(1940, 2012), rng.randint(1, 12), rng.randint(1, 28)
    chinese = "〇一二三四五六七八九"
    tens = ["", "十", "二十"]
    number = lambda n: (tens[n // 10] if n >= 10 else "") + (chinese[n % 10] if n % 10 else "")  # noqa: E731
    return rng.choice(
        [
            f"{y}年{m}月{d}日",
            f"{y}-{m:02}-{d:02}",
            f"{y}/{m}/{d}",
            f"{y}.{m:02}.{d:02}",
            f"{y} 年 {m} 月 {d} 日",
            f"{y}年{m:02}月{d:02}日",
            full_width(f"{y}年{m}月{d}日"),
            "".join(chinese[int(s)] for s in str(y)) + f"年{number(m)}月{number(d)}日",
            f"{y}{m:02}{d:02}",
            f"{y}年{m}月{d}号",
        ]
    )


def address_en(rng: random.Random) -> str:
    kind = one_of(rng, "Street|St|Avenue|Ave.|Road|Lane|Drive|Blvd|Court|Way")
    street = f"{rng.randint(1, 9999)} {rng.choice(words.STREETS)} {kind}"
    return street + rng.choice(
        [
            "",
            f", Apt {rng.randint(1, 40)}",
            f", {rng.choice(words.TOWNS)}",
            f", {rng.choice(words.TOWNS)}, {rng.choice(['CA', 'NY', 'TX', 'WA'])} {digits(rng, 5, '123456789')}",
        ]
    )


def address_zh(rng: random.Random) -> str:
    area = one_of(
        rng,
        "|北京市海淀区|上海市浦东新区|广东省深圳市南山区|浙江省杭州市西湖区|成都市武侯区|江苏省南京市鼓楼区",
    )
    road = one_of(
        rng,
        "中关村大街|科技路|人民南路|文三路|世纪大道|解放路|学院路|天府大道|和平里西街",
    )
    tail = rng.choice(
        [
            "",
            f"{rng.randint(1, 30)}号楼{rng.randint(101, 3000)}室",
            f"{rng.randint(1, 20)}栋{rng.randint(1, 4)}单元{rng.randint(101, 2000)}",
            f"{rng.randint(2, 30)}层",
        ]
    )
    return f"{area}{road}{rng.randint(1, 2000)}号{tail}"


def name_en(rng: random.Random) -> str:
    first, last = rng.choice(words.FIRST), rng.choice(words.LAST)
    return rng.choices(
        [
            f"{first} {last}",
            f"{first} {rng.choice(UPPER)}. {last}",
            f"{last}, {first}",
            first,
            f"{first.upper()} {last.upper()}",
            f"{first} {last}-{rng.choice(words.LAST)}",
        ],
        [62, 8, 6, 12, 4, 8],
    )[0]


def name_zh(rng: random.Random) -> str:
    surname = rng.choice(words.SURNAMES) if rng.random() < 0.95 else rng.choice(words.DOUBLE_SURNAMES)
    return surname + "".join(rng.choices(words.GIVEN, k=rng.choice([1, 2, 2, 2])))


def _random(rng: random.Random, signs: str, number: int) -> str:
    return "".join(rng.choices(signs, k=number))


def secret(rng: random.Random) -> str:
    base = UPPER + LOWER + DIGITS
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).decode().rstrip("=")
    body = (
        base64.urlsafe_b64encode(json.dumps({"sub": digits(rng, 10), "iat": rng.randint(10**9, 2 * 10**9)}).encode())
        .decode()
        .rstrip("=")
    )
    return rng.choice(
        [
            "AKIA" + _random(rng, UPPER + "234567", 16),
            "ghp_" + _random(rng, base, 36),
            "glpat-" + _random(rng, base + "-_", 20),
            "sk-proj-" + _random(rng, base + "-_", 60) + "Z9",
            "sk-" + _random(rng, base, 48),
            "sk-ant-api03-" + _random(rng, base + "-_", 80) + "AA",
            "xoxb-" + digits(rng, 12, "123") + "-" + digits(rng, 12, "456") + "-" + _random(rng, base, 24),
            "sk_live_" + _random(rng, base, 24),
            "AIza" + _random(rng, base + "-_", 34) + "x",
            "hf_" + _random(rng, base, 34),
            "npm_" + _random(rng, base, 36),
            "LTAI" + _random(rng, base, 20),
            f"{header}.{body}.{_random(rng, base + '-_', 42)}x",
            "github_pat_" + _random(rng, base, 22) + "_" + _random(rng, base, 59),
            "SG." + _random(rng, base, 22) + "." + _random(rng, base, 43),
            "-----BEGIN RSA PRIVATE KEY-----\n"
            + "\n".join(_random(rng, base + "+/", 64) for _ in range(4))
            + "\n-----END RSA PRIVATE KEY-----",
        ]
    )


def password(rng: random.Random) -> str:
    return _random(rng, LOWER, 5) + rng.choice("!@#$%*") + digits(rng, rng.randint(2, 4)) + rng.choice(UPPER)


def token(rng: random.Random) -> str:
    return rng.choice(
        [
            _random(rng, "0123456789abcdef", 40),
            "a1" + _random(rng, UPPER + LOWER + DIGITS, 38),
            _random(rng, UPPER + LOWER + DIGITS, 30) + "9Q==",
        ]
    )


def credential(rng: random.Random) -> str:
    return _random(rng, LOWER + DIGITS, rng.randint(8, 14))


ITEMS: dict[str, Make] = {
    **{
        f.__name__: f
        for f in (card, iban, resident_id, ssn, ssn_plain, ip, mac, email, email_url, email_spelt, phone_link)
    },
    **{
        f.__name__: f
        for f in (phone_en, phone_zh, passport_en, passport_zh, passport_zone, plate_zh, plate_en, plate_named)
    },
    **{
        f.__name__: f
        for f in (born_en, born_zh, address_en, address_zh, name_en, name_zh, secret, password, token, credential)
    },
}


def _not_luhn(rng: random.Random) -> str:
    number = rng.choice("456") + digits(rng, 14)
    return number + str((int(luhn_digit(number)) + rng.randint(1, 9)) % 10)


def _not_resident(rng: random.Random) -> str:
    made = "".join(s for s in resident_id(rng) if s.isalnum() and s.isascii()).upper()
    return (
        "".join([made[:17], rng.choice([s for s in "0123456789" if s != made[17:18]])])
        if len(made) == 18
        else "110105194912310021"
    )


NEGATIVES: dict[str, Make] = {
    "order": lambda rng: shaped(
        rng,
        one_of(
            rng,
            "###-#######-#######|##########|ORD-####-#####|A###########|2024##########|15########",
        ),
    ),
    "order_cn": lambda rng: rng.choice(["2024", "2025", "TB", "JD"]) + digits(rng, rng.choice([10, 12, 14])),
    "not_card": _not_luhn,
    "not_resident": _not_resident,
    "version": lambda rng: ".".join(str(rng.randint(0, 30)) for _ in range(rng.choice([3, 4]))),
    "time": lambda rng: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}",
    "date": lambda rng: rng.choice(
        [
            f"{rng.randint(2015, 2026)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
            f"{rng.choice(MONTHS)} {rng.randint(1, 28)}, 2024",
        ]
    ),
    "date_cn": lambda rng: f"{rng.randint(2015, 2026)}年{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
    "price": lambda rng: rng.choice(
        [
            f"${rng.randint(1, 9999):,}.{rng.randint(0, 99):02}",
            f"{rng.randint(1000, 9999999):,}",
            f"€{rng.randint(100, 99999)}",
            f"¥{rng.randint(10, 99999)}",
        ]
    ),
    "isbn": lambda rng: shaped(rng, rng.choice(["978-#-###-#####-#", "978-7-111-#####-#", "9787#########"])),
    "uuid": lambda rng: "-".join(_random(rng, "0123456789abcdef", n) for n in (8, 4, 4, 4, 12)),
    "sha": lambda rng: _random(rng, "0123456789abcdef", rng.choice([7, 40, 64])),
    "float": lambda rng: f"{rng.uniform(-180, 180):.{rng.randint(5, 14)}f}",
    "range": lambda rng: f"{rng.randint(1990, 2010)}-{rng.randint(2011, 2026)}",
    "score": lambda rng: f"{rng.randint(0, 9)}-{rng.randint(0, 9)}",
    "unix": lambda rng: str(rng.randint(1_600_000_000, 1_800_000_000)),
    "unix_ms": lambda rng: str(rng.randint(1_600_000_000_000, 1_800_000_000_000)),
    "big": lambda rng: str(rng.randint(10**5, 10**9)),
    "size": lambda rng: f"{rng.randint(100, 4000)}x{rng.randint(100, 4000)}",
    "part": lambda rng: shaped(
        rng,
        one_of(
            rng,
            "AA-####-A|A####-##|##-A###|AAA####|#A-##|AA####A",
        ),
    ),
    "digits_long": lambda rng: "1" + digits(rng, rng.choice([19, 21, 24])),
    "file": lambda rng: one_of(
        rng,
        "icon@2x.png|logo@3x.svg|main@1.2.3.js|IMG_20240512_143015.jpg|v2_final(3).docx",
    ),
    "handle": lambda rng: "@" + rng.choice(words.FIRST).lower() + str(rng.randint(1, 99)),
    "ratio": lambda rng: f"{rng.randint(1, 99)}:{rng.randint(1, 99)}",
    "hex": lambda rng: "#" + _random(rng, "0123456789abcdef", 6),
}
"""What looks like an item and is none."""
