"""Output filter: a stream is filtered as the whole text is, however it is divided, and shows prose soon."""

from __future__ import annotations

import random

import pytest

from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.output_filter import OutputFilter
from tests.components.privacy.made_up import texts


def streamed(text: str, rng: random.Random) -> str:
    found, shown, at = OutputFilter(), "", 0
    while at < len(text):
        step = rng.randint(1, 7)
        shown += found.push(text[at : at + step])
        at += step
    return shown + found.push("", last=True)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_item_passes_in_a_stream(language: str) -> None:
    rng, passed, items = random.Random(3), [], 0
    for row in texts(language, 150, seed=21):
        whole, shown = OutputFilter().push(row.text, last=True), streamed(row.text, rng)
        for start, end, kind in row.found:
            item = row.text[start:end]
            if kind in ("name", "address") or item in whole:
                continue
            items += 1
            if item in shown:
                passed.append((kind, item, shown))
    assert items > 100
    assert passed == []


def test_prose_is_shown_while_it_is_generated() -> None:
    found = OutputFilter()
    words = "the parcel came late and nobody at the shop could say why".split()
    shown = [found.push(f"{word} ") for word in words]
    assert sum(map(bool, shown)) > 5
    assert "".join(shown) + found.push("", last=True) == " ".join(words) + " "


def test_an_item_is_held_back_until_it_is_complete() -> None:
    found = OutputFilter()
    parts = [found.push(part) for part in ("write to anna", ".novak@we", "b.de", " and wait for the reply")]
    assert "anna" not in "".join(parts)
    assert "".join(parts) + found.push("", last=True) == "write to <EMAIL> and wait for the reply"
    assert found.counts == {"email": 1}


def test_a_private_key_is_held_back_as_a_whole() -> None:
    found = OutputFilter((Kind.SECRET,))
    body = "\n".join("aB3" * 20 for _ in range(30))
    text = f"here:\n-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\nkeep it"
    shown = "".join(found.push(text[n : n + 50]) for n in range(0, len(text), 50)) + found.push("", last=True)
    assert shown == "here:\n<SECRET>\nkeep it"
