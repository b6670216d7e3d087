"""Params: overrides from text, strictness, nearest names."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import Fraction, Params, Positive, Source, describe_fields, flatten, known_keys
from raypath.components.read import ReadParams


class Inner(Params):
    """Inner settings."""

    epochs: Positive = 2
    """Passes over the data."""
    lr: float = 1e-4
    """Learning rate."""
    kind: Literal["a", "b"] = "a"
    """Which."""
    span: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest."""
    base: Source = "x"
    """Address."""
    limit: Positive | None = 5
    """A limit; none for no limit."""
    space: dict[str, list[int] | dict[str, float]] = Field(default_factory=dict)
    """Choices or a range of each name."""


class Outer(Params):
    """Outer settings."""

    inner: Inner = Inner()
    share: Fraction = 0.5
    """A share."""
    title: str = "t"
    """A title."""


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("inner.epochs", "3", 3),
        ("inner.lr", "1e-3", 1e-3),
        ("inner.lr", "1", 1.0),
        ("inner.kind", "b", "b"),
        ("inner.span", "0.1,0.2", (0.1, 0.2)),
        ("inner.span", "[0.1, 0.2]", (0.1, 0.2)),
        ("inner.limit", "none", None),
        ("inner.limit", "NULL", None),
        ("inner.limit", "", None),
        ("share", "0.25", 0.25),
        ("title", "123", "123"),
        ("title", "[x]", "[x]"),
        ("title", "", ""),
    ],
)
def test_text_is_read_as_the_fields_type(key: str, text: str, value: object) -> None:
    changed = Outer().override({key: text})
    found: object = changed
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("inner.epoch", "3", "did you mean inner.epochs"),
        ("epochs", "3", "did you mean inner.epochs"),
        ("inner.epochs", "0", "greater than or equal to 1"),
        ("inner.epochs", "many", "many"),
        ("inner.kind", "c", "'a' or 'b'"),
        ("share", "1.5", "less than 1"),
        ("inner", "3", "is a group"),
        ("inner.span", "[1", "not JSON"),
        ("quite.else", "1", "known settings"),
        ("inner.also", "1", "settings of inner: inner.epochs, inner.lr, inner.kind"),
        ("iner.epochs", "1", "did you mean inner.epochs"),
        ("shar", "1", "did you mean share"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_wanted(key: str, text: str, says: str) -> None:
    with pytest.raises(ParamsError) as caught:
        Outer().override({key: text})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entries_of_a_mapping_are_set_one_by_one_or_all_together() -> None:
    wanted = {"layers": [0, 2], "factor": {"low": 1.0, "high": 3.0}}
    nested = flatten({"inner": {"space": wanted}})
    assert Outer().override(dict(nested)).inner.space == wanted
    whole = '{"layers": [0, 2], "factor": {"low": 1, "high": 3}}'
    assert Outer().override({"inner.space": whole}).inner.space == wanted
    few = {"inner.space.layers": "[0, 2]", "inner.space.factor.low": "1", "inner.space.factor.high": "3"}
    assert Outer().override(few).inner.space == wanted


def test_values_from_a_file_keep_their_type() -> None:
    assert Outer().override({"inner.epochs": 4}).inner.epochs == 4
    with pytest.raises(ParamsError):
        Outer().override({"inner.epochs": 4.5})


def test_params_are_frozen_and_refuse_unknown_fields() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().title = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra inputs"):
        Outer(colour="red")  # type: ignore[call-arg]


def test_sources_are_the_fields_marked_so() -> None:
    assert Inner(base="data.csv").sources() == ["data.csv"]
    assert Inner(base="").sources() == []
    assert Outer().sources() == []


class Files(Params):
    """Addresses that may be left out."""

    valid: Source | None = None
    """Address."""
    test: Source | None = None
    """Address."""
    name: str | None = "x"
    """No address."""


def test_sources_that_may_be_left_out_count_where_they_are_given() -> None:
    assert Files().sources() == []
    assert Files(test="b", valid="a").sources() == ["a", "b"]


def test_every_key_is_described() -> None:
    fields = list(describe_fields(Outer))
    assert [key for key, _, _ in fields] == known_keys(Outer)
    assert ("inner.epochs", "int", "Passes over the data.") in fields


class Kinds(Params):
    space: dict[str, Annotated[int | str, Field(union_mode="left_to_right")]] | None = None
    """A mapping."""
    how: Literal["a", "b"] | None = "a"
    """One of two."""
    span: tuple[float, float] = (0, 1)
    """Two numbers."""


def test_types_are_described_in_short() -> None:
    assert [kind for _, kind, _ in describe_fields(Kinds)] == ["dict | none", "a | b | none", "tuple[float, float]"]


def test_a_name_of_a_column_may_have_dots() -> None:
    wanted = {"message.body": "set", "Preis": "number"}
    one_by_one = {"kinds.message.body": "set", "kinds.Preis": "number", "inputs": "message.body,Preis"}
    found = ReadParams().override(one_by_one)
    assert found.kinds == wanted
    assert ReadParams().override(found.flat()) == found
    nested = {"kinds": {"message": {"body": "set"}, "Preis": "number"}, "inputs": ["message.body", "Preis"]}
    assert ReadParams().override(dict(flatten(nested))).kinds == wanted
