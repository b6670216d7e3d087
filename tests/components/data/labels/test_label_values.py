"""What one value of a column means as a set of classes or as a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raypath.components.data.columns.numeric import parse_number
from raypath.components.data.labels.sets import parse_set


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("Comedy|Drama", ["Comedy", "Drama"]),
        (" 喜剧 | 🎬, old || 喜剧|", ["喜剧", "🎬, old"]),
        ("", []),
        (" [] ", []),
        ('["a|b", " c ", "c", 1, 1.0, true]', ["a|b", "c", "1", "true"]),
        (["a|b", "a|b", ""], ["a|b"]),
        (3, ["3"]),
        (3.0, ["3"]),
        ("['drama', 'it\\'s']", ["drama", "it's"]),
        ('["it\'s", 1, 2.0,]', ["it's", "1", "2"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("{'a', 'b'}", ["a", "b"]),
        ("('a',)", ["a"]),
        ("set()", []),
        ("(new)|old", ["(new)", "old"]),
        ("['a', None]", None),
        ("['a', nan]", None),
        ("['a' ... 'z']", None),
        ("['a', print()]", None),
        ("[a, b]", None),
        ("['\\N{NO SUCH}']", None),
        ('["a", null]', None),
        ('["\\ud800"]', None),
        ("[" * 100_000, None),
        (["a", None], None),
        ({"a": 1}, None),
        (1.5, None),
        (None, None),
    ],
)
def test_what_a_set_is(value: Any, wanted: list[str] | None) -> None:
    assert parse_set(value, "|") == wanted


@pytest.mark.parametrize("value", [" -1.5e3 ", "+.5", "7.", 3, 2.5, np.float32(0.5)])
def test_what_a_number_is(value: Any) -> None:
    assert parse_number(value) == float(value)


@pytest.mark.parametrize("value", ["", "nan", "inf", "1,5", "1_000", "1e39", "0x1", True, None, float("nan"), 10**400])
def test_what_no_number_is(value: Any) -> None:
    assert parse_number(value) is None
