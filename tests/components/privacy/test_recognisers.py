"""Recognisers on made-up texts, whose seed no pattern was written by, and on forms that were missed before."""

from __future__ import annotations

import time

import pytest

from raypath.components.core.columns import Redaction
from raypath.components.privacy import checksums
from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.plain import plain
from raypath.components.privacy.recogniser import VERSION, find
from raypath.components.privacy.redactor import Redactor
from tests.bench.redaction import measure, redactor
from tests.components.privacy.made_up import texts


def found(text: str) -> list[tuple[str, str]]:
    return [(span.kind.value, text[span.start : span.end]) for span in find(text)]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recall_and_precision_on_made_up_texts(language: str) -> None:
    result = measure(texts(language, 300, seed=11), redactor())
    assert result.recall(but=("name", "address")) >= 0.99, result.missed
    assert result.precision >= 0.97, result.mistaken


@pytest.mark.parametrize(
    ("text", "kind", "item"),
    [
        ("邮箱zhang.san@163.com请回复", "email", "zhang.san@163.com"),
        ("u=a.b%40web.de&x", "email", "a.b%40web.de"),
        ('{"mail": "a.b\\u0040web.de"}', "email", "a.b\\u0040web.de"),
        ("write to anna＠web.de", "email", "anna＠web.de"),
        ("write to anna (at) web (dot) de", "email", "anna (at) web (dot) de"),
        ("手机：１３８ ００１３ ８０００", "phone", "１３８ ００１３ ８０００"),
        ("a,+44 7700 900 123,b", "phone", "+44 7700 900 123"),
        ("call +49 (0)30 1234567 now", "phone", "+49 (0)30 1234567"),
        ("card 4111-1111\u20111111\u00a01111", "card", "4111-1111\u20111111\u00a01111"),
        ("4111\u200b1111\u200b1111\u200b1111", "card", "4111\u200b1111\u200b1111\u200b1111"),
        ("IBAN DE89 3704 0044 0532 0130 00 and", "iban", "DE89 3704 0044 0532 0130 00"),
        ("身份证11010519491231002X。", "resident_id", "11010519491231002X"),
        ("her SSN 123 45 6789", "ssn", "123 45 6789"),
        ("IP地址：2001:db8::1:ab", "ip", "2001:db8::1:ab"),
        ("MAC地址：00:1A:2b:3C:4d:5E", "mac", "00:1A:2b:3C:4d:5E"),
        ("京A·12345的车主", "plate", "京A·12345"),
        ("生于一九八三年七月二十六日", "birth_date", "一九八三年七月二十六日"),
        ("born on the 3rd of May 1990", "birth_date", "3rd of May 1990"),
        ("护照号码：E12345678", "passport", "E12345678"),
        ("L898902C36UTO7408122F1204159ZE184226B<<<<<10", "passport", "L898902C36UTO7408122F1204159ZE184226B<<<<<10"),
        ("mysql://root:tr0ub4dor@db/x", "secret", "tr0ub4dor"),
        ("key AKIAIOSFODNN7EXAMPLE", "secret", "AKIAIOSFODNN7EXAMPLE"),
        ("at 221B Baker Street, London.", "address", "221B Baker Street, London"),
        ("住在中关村大街27号3号楼502室", "address", "住在中关村大街27号3号楼502室"),
    ],
)
def test_items_are_found_in_their_forms(text: str, kind: str, item: str) -> None:
    assert (kind, item) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "order number 13812345678",
        "4111 1111 1111 1112",
        "编号110105194912310021有误",
        "version 1.2.3.4, section 4.2.1.3",
        "std::abs(::add) at 12:30:45",
        "git clone git@github.com:team/project.git",
        "icon@2x.png",
        "DE88370400440532013000",
        "located at 175.85538132, -85.9745",
        "100 000 000 000 stars",
        "ISBN 978-7-111-40701-0",
        "password: ********, api_key=YOUR_API_KEY, token: ${TOKEN}",
        "released on 12 May 1990",
        "localhost is 127.0.0.1 or ::1",
        "000-12-3456 and 666-12-3456",
    ],
)
def test_look_alikes_are_left(text: str) -> None:
    assert found(text) == []


def test_check_digits_of_published_examples() -> None:
    assert checksums.card("4111111111111111")
    assert not checksums.card("4111111111111112")
    assert not checksums.card("0" * 16)
    assert checksums.iban("GB82WEST12345698765432")
    assert not checksums.iban("GB82WEST1234569876543")
    assert checksums.resident_id("11010519491231002X")
    assert not checksums.resident_id("110105194913310021")
    assert checksums.hong_kong_id("G", "123456", "A")
    assert not checksums.hong_kong_id("G", "123456", "9")
    assert checksums.taiwan_id("A123456789")
    assert not checksums.taiwan_id("A123456788")
    assert checksums.machine_readable("L898902C36UTO7408122F1204159ZE184226B<<<<<10")
    assert not checksums.machine_readable("L898902C36UTO7408122F1204159ZE184226B<<<<<11")


def test_ranges_are_those_of_the_original() -> None:
    text = "a\u200bb ｃ@d.io １２"
    made = plain(text)
    assert made.text == "ab c@d.io 12"
    start = made.text.index("c@d.io")
    assert text[slice(*made.original(start, start + 6))] == "ｃ@d.io"


def test_the_earlier_kind_counts_where_two_overlap() -> None:
    assert found("mail 13812345678@qq.com") == [("email", "13812345678@qq.com")]


@pytest.mark.parametrize(
    "text",
    [
        *("1 " * 20_000, "+" * 40_000, "(" * 40_000, "a." * 20_000 + "@", "a@" + "b." * 20_000, "0 0-" * 10_000),
        *(
            "1:" * 20_000,
            "DE" * 20_000,
            "一" * 40_000,
            "路1" * 20_000,
            "A" * 40_000,
            "password " * 5_000,
            "1." * 20_000,
        ),
        *("+1" * 20_000, "born " * 8_000, "passport: " * 4_000, "call " * 8_000, "<" * 40_000, "eyJ" * 14_000),
        *(
            "12 Baker " * 5_000,
            "市区县" * 13_000,
            "http://" * 6_000,
            "Aa " * 13_000,
            "a-" * 20_000,
            "x at y dot " * 4_000,
        ),
    ],
)
def test_hostile_texts_take_no_more_than_their_length(text: str) -> None:
    began = time.process_time()
    find(text * (6_000 // len(text)))
    assert time.process_time() - began < 1.0


def test_kinds_are_chosen() -> None:
    made = Redactor(Redaction(version=VERSION, kinds=(Kind.EMAIL.value,)))
    assert made.text("a@b.de 13812345678") == "<EMAIL> 13812345678"
