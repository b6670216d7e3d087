"""Texts on which a pattern with backtracking takes hours: time grows with their length, and not with its square."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from raypath.components.data.columns.numeric import parse_number, with_point
from raypath.components.data.labels.classes import ClassCollector
from raypath.components.data.labels.sets import parse_set
from raypath.components.data.sources.existing_columns import _parts
from raypath.components.inspection.texts.personal_data import find


def addresses(count: int) -> str:
    return " ".join(f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.7" for n in range(1, count))


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (parse_number, "1" * 1_000_000 + "x"),
        (with_point, "1" * 1_000_000 + "x"),
        (lambda text: ClassCollector("label")._infer([text]), "1" * 1_000_000 + "x"),
        (lambda text: parse_set(text, "|"), "[" + "1" * 200_000 + " " * 200_000 + "x]"),
        (_parts, "a" + " " * 1_000_000 + "b"),
        (find, "a" * 1_000_000 + " @B"),
        (find, addresses(60_000)),
        (find, "1 " * 300_000 + "@B"),
    ],
    ids=["number", "comma", "label", "set", "columns", "address", "hosts", "phones"],
)
def test_time_is_linear(function: Callable[[str], object], text: str) -> None:
    began = time.process_time()
    function(text)
    assert time.process_time() - began < 10


def test_what_is_found_is_the_same() -> None:
    numbers = {"3": 3.0, "3.": 3.0, ".5": 0.5, "-3.5e5": -3.5e5, "1e": None, ".": None, "1.2.3": None, "": None}
    assert {text: parse_number(text) for text in numbers} == numbers
    assert find("write to .anna@example.org or call +49 30 1234567") == {"email", "phone"}
    assert find("at 10.0.0.1, 4111 1111 1111 1111") == {"ip", "card"}, "their digits are no phone number"
