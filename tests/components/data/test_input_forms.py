"""The form in which several input columns become one text."""

from __future__ import annotations

import pytest

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError
from raypath.components.data.rendering import choose_form


def _columns(*kinds: str) -> list[Column]:
    return [Column(name=f"c{n}", kind=kind, stored=f"input.c{n}") for n, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("kinds", "encodes_pairs", "wanted", "form"),
    [
        ((), True, "auto", "text"),
        (("text",), True, "auto", "text"),
        (("text",), True, "fields", "text"),
        (("text", "text"), True, "auto", "pair"),
        (("text", "text"), True, "pair", "pair"),
        (("text", "text"), True, "fields", "fields"),
        (("text", "text"), False, "auto", "fields"),
        (("text", "number"), True, "auto", "fields"),
        (("text", "text", "text"), True, "auto", "fields"),
    ],
)
def test_two_texts_are_a_pair_where_the_tokenizer_separates_them(
    kinds: tuple[str, ...], encodes_pairs: bool, wanted: str, form: str
) -> None:
    assert choose_form(_columns(*kinds), encodes_pairs, wanted) == form


@pytest.mark.parametrize(
    ("kinds", "encodes_pairs"), [((), True), (("text",), True), (("text", "text"), False), (("text", "number"), True)]
)
def test_a_pair_of_what_is_none(kinds: tuple[str, ...], encodes_pairs: bool) -> None:
    with pytest.raises(DataError) as caught:
        choose_form(_columns(*kinds), encodes_pairs, "pair")
    assert (caught.value.what, caught.value.fix) == (
        "form pair takes two texts, and a tokenizer that separates them",
        "leave preprocess.form out, or set -s preprocess.form=fields",
    )
