"""Names of classes in the metadata of a schema, and classes that a setting names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.data.columns.kind import ColumnKind
from raypath.components.data.columns.schema import Columns
from raypath.components.data.named_classes import import_class, is_imported
from raypath.components.data.sources.class_names import class_names, with_names
from raypath.components.data.sources.data_file import DataFile


def _schema(features: Any) -> pa.Schema:
    return pa.schema([("label", pa.int64())], {"huggingface": json.dumps({"info": {"features": features}})})


LABEL = {"_type": "ClassLabel", "names": ["bad", 7]}


@pytest.mark.parametrize(
    ("features", "names"),
    [
        ({"label": LABEL, "text": {"_type": "Value"}}, {"label": ["bad", "7"]}),
        ({"label": [LABEL]}, {"label": ["bad", "7"]}),
        ({"label": [LABEL, LABEL]}, {}),
        ({"label": {"_type": "Sequence", "feature": LABEL}}, {"label": ["bad", "7"]}),
        ({"label": {"_type": "ClassLabel"}}, {}),
        ({"label": 5}, {}), ([], {}), (None, {}),
    ],
)  # fmt: skip
def test_names_of_classes(features: Any, names: dict[str, list[str]]) -> None:
    assert class_names(_schema(features), Columns((), ("label",))) == names
    assert class_names(pa.schema([]), Columns((), ("label",))) == {}


def test_numbers_of_classes_become_names() -> None:
    file = DataFile(Path("a.parquet"), "parquet")

    def named(values: list[Any], dtype: Any, names: list[str] | None = None) -> list[Any]:
        column = pa.chunked_array([pa.array(values, dtype)])
        found: list[Any] = with_names(file, column, ["a", "b"] if names is None else names, 8).to_pylist()
        return found

    assert named([1, 0, -1, None], pa.int8()) == ["b", "a", None, None]
    assert named([[1, 0], [], None], pa.list_(pa.int64())) == [["b", "a"], [], None]
    assert named([[0]], pa.large_list(pa.int64())) == [["a"]]
    assert named(["x"], pa.string()) == ["x"]
    assert with_names(file, pa.chunked_array([[1]]), None, 8).to_pylist() == [1]
    for wrong in (2, -2):
        with pytest.raises(DataError) as caught:
            named([0, wrong], pa.int64())
        assert str(caught.value) == (
            "a.parquet has a class number without a name, in row 8 or later; wanted 0 to 1; "
            "write the dataset again with the names of all its classes"
        )


def test_classes_by_name() -> None:
    known = "raypath.components.data.columns.text:Text"
    assert import_class(known, ColumnKind, "kind x").name == "text"  # type: ignore[type-abstract]
    assert is_imported(known, ColumnKind)
    assert not is_imported("raypath.components.data.columns.text:pa", ColumnKind)
    assert not is_imported("no_such_module:Text", ColumnKind)
    errors = {
        "no_such_module:X": "kind x cannot be imported (No module named 'no_such_module'); "
        "check the spelling and the module",
        "raypath.components.data.columns.text:Txt": "kind x cannot be imported (module "
        "'raypath.components.data.columns.text' has no attribute 'Txt'); check the spelling and the module",
        "raypath.components.data.columns.text:is_valid_unicode": "raypath.components.data.columns.text:"
        "is_valid_unicode is not a ColumnKind; subclass raypath.components.data.columns.kind.ColumnKind",
        "pathlib:Path": "pathlib:Path is not a ColumnKind; subclass raypath.components.data.columns.kind.ColumnKind",
    }
    for path, wanted in errors.items():
        with pytest.raises(ParamsError) as caught:
            import_class(path, ColumnKind, "kind x")  # type: ignore[type-abstract]
        assert str(caught.value) == wanted
