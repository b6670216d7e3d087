"""Texts of a caller: one or several, and what is rejected because it would be read as something else."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import raypath
from raypath.components.tasks.texts import as_texts


@pytest.mark.parametrize("given", [["a", "ü"], ("a", "ü"), iter(["a", "ü"]), pd.Series(["a", "ü"])])
def test_several_texts(given: Any) -> None:
    assert as_texts(given) == ["a", "ü"]
    assert as_texts("a text") == ["a text"]


WRONG: dict[str, tuple[Any, str]] = {
    "none": (None, "texts is a NoneType; give a str or a list of str"),
    "number": (3, "texts is a int"),
    "bytes": (b"a", "texts is a bytes"),
    "mapping": ({"text": "a"}, "texts is a dict"),
    "table": (pd.DataFrame({"body": ["a"]}), "texts is a DataFrame"),
    "missing cell": (["a", float("nan")], "texts[1] is a float"),
    "half a character": (["a\ud800"], "texts[0] has half of a surrogate pair"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_text_is_one_line_before_a_request_is_sent(name: str) -> None:
    given, message = WRONG[name]
    with pytest.raises(raypath.DataError) as caught:
        as_texts(given)
    assert message in str(caught.value)
    if name == "mapping":
        return  # a row of a model with several input columns, which the endpoint knows
    with raypath.Client("http://127.0.0.1:9") as client, pytest.raises(raypath.DataError):
        client.predict(given)


def test_half_a_character_in_one_text() -> None:
    with raypath.Client("http://127.0.0.1:9") as client, pytest.raises(raypath.DataError, match="surrogate"):
        client.predict("a\ud800")
