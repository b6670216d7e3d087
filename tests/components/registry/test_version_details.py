"""Facts of a version in one tag: read back as they were, and as an earlier Raypath stored them."""

from __future__ import annotations

import pytest

from raypath.components.registry.client import RegisteredVersion
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import signing_key, trusted_keys
from raypath.components.registry.signing.records import sign_version, verify_version
from raypath.components.registry.tags import pack, unpack
from raypath.components.tracking.tags import DETAILS, SIGNATURE

FLAT = {
    "raypath.key": "k",
    "raypath.run": "",
    "raypath.task": "text_classification",
    "raypath.metric.accuracy": "0.9",
    "raypath.metric.macro_f1": "0.8",
    "raypath.metric.macro_f1_low": "0.7",
}


def test_facts_are_the_same_in_one_tag_or_in_many() -> None:
    packed = pack(FLAT, "macro_f1")
    assert set(packed) == {"raypath.key", "raypath.metric.macro_f1", DETAILS}
    assert unpack(packed) == {name: text for name, text in FLAT.items() if text}
    assert unpack(FLAT) == FLAT
    versions = [RegisteredVersion("m", 1, tags=tags) for tags in (FLAT, packed)]
    assert [each.metrics for each in versions] == [{"accuracy": 0.9, "macro_f1": 0.8, "macro_f1_low": 0.7}] * 2


@pytest.mark.parametrize("text", ["", "no json", "[1]", "[" * 100_000])
def test_a_damaged_tag_has_no_facts(text: str) -> None:
    assert unpack({"raypath.key": "k", DETAILS: text}) == {"raypath.key": "k"}


def test_it_is_signed() -> None:
    packed = pack(FLAT, "macro_f1")
    packed[SIGNATURE] = sign_version(signing_key(None), "m", 1, "digest", packed)
    verify_version("m", 1, packed, trusted_keys(None))
    altered = packed | {DETAILS: packed[DETAILS].replace("0.9", "0.99")}
    with pytest.raises(Untrusted, match="tags or metrics that were changed"):
        verify_version("m", 1, altered, trusted_keys(None))
