"""Answers, inputs and errors of the code that is stored with a version, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raypath.components.registry.signing import keys, manifest
from tests.raised import raised

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")


def _module() -> Any:
    """MLflow warns of type hints when the module is imported."""
    from raypath.components.registry.flavors import pyfunc_model

    return pyfunc_model


def _rendered(value: Any, kind: str) -> str:
    return _module()._render(value, kind)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (["a", "b"], "set", "a, b"),
        (np.array(["a"]), "set", "a"),
        (None, "text", ""),
        (float("nan"), "number", ""),
        (3.0, "number", "3"),
        (1e15, "number", "1e+15"),
        (-2.0, "number", "-2"),
        (1 / 3, "number", "0.333333"),
        (True, "boolean", "yes"),
        (False, "boolean", "no"),
        ("2025-03-31", "time", "2025-03-31"),
        ("2025-03-31T09:30:00+02:00", "time", "2025-03-31 07:30"),
        ("2025-03-31 00:01", "time", "2025-03-31 00:01"),
        (" a ", "category", "a"),
        (" a ", "text", " a "),
    ],
)
def test_a_value_as_text_without_raypath(value: Any, kind: str, text: str) -> None:
    assert _rendered(value, kind) == text


def test_inputs_that_a_version_without_raypath_cannot_read(tmp_path: Path) -> None:
    columns = [{"name": "a", "kind": "text"}, {"name": "b", "kind": "text"}]
    table = pd.DataFrame({"a": ["x"]})
    text = "ValueError: column b is missing; wanted a, b"
    assert raised(lambda: _module()._rendered(table, columns, "fields")) == text
    text = "ValueError: an input column is of the kind own.kinds:Kind, which only Raypath opens: use raypath.load"
    assert raised(lambda: _rendered("x", "own.kinds:Kind")) == text
    for cell, found in ((None, "is missing"), (3, "is a int"), ([], "is a list")):
        given = pd.DataFrame({"text": ["x", cell]})
        text = f"ValueError: text of row 1 {found}; wanted a text in every row"
        assert raised(lambda given=given: _module()._texts(given, "text")) == text  # type: ignore[misc]
    rows = pd.DataFrame({"a": ["x", None], "b": ["y", "z"]})
    assert _module()._rendered(rows, columns, "fields") == ["a: x\nb: y", "b: z"]
    assert _module()._rendered(rows, columns, "pair") == [("x", "y"), ("", "z")]
    assert _module()._rendered(rows, columns[1:], "text") == ["y", "z"]
    lists = pd.DataFrame({"a": [["x", "w"]], "b": [["y", "z"]]})
    assert _module()._rendered(lists, columns, "pair") == [("x", "y"), ("w", "z")]


def test_rows_of_similar_length_are_grouped() -> None:
    rows = [[0] * length for length in (700, 1, 800, 768, 768, 2000)]
    assert _module()._groups(rows) == [[1, 0], [3, 4], [2], [5]]
    assert _module()._groups([]) == []


def test_a_folder_that_is_opened_without_raypath_has_to_be_as_it_was_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(keys.PRIVATE)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("a")
    for name in ("ours", "others"):
        keys.ensure_key(tmp_path / name)
    [ours], [others] = ((tmp_path / name).glob("*.pub") for name in ("ours", "others"))

    def check(given: Path | str) -> str:
        return raised(lambda: _module()._check_signature(folder, str(given)))

    said = f"ValueError: {folder} is not signed; RAYPATH_PUBLIC_KEYS is set, so only signed models are opened"
    assert check(ours) == said
    manifest.sign_folder(keys.signing_key(tmp_path / "ours"), folder, "", "m", {})
    for given in (str(ours), str(tmp_path / "ours"), ours.read_text(), others.read_text() + ours.read_text()):
        _module()._check_signature(folder, given)
    assert check(others) == f"ValueError: {folder} is not signed by a key in RAYPATH_PUBLIC_KEYS"
    (folder / "b").write_text("b")
    assert check(ours) == f"ValueError: {folder}: b is not as it was signed; fetch the version again"
    (folder / "a").unlink()
    assert check(ours) == f"ValueError: {folder}: a is not as it was signed; fetch the version again"


@pytest.mark.parametrize(
    ("answer", "metadata", "wanted"),
    [
        ("_label", {"labels": ["a", "b"]}, {"label": ["a", "b"], "score": [0.75, 0.75]}),
        ("_label", {"labels": ["a", "b"], "thresholds": [0.25]}, {"label": ["b", "b"], "score": [0.25, 0.75]}),
        ("_label", {"labels": ["1", "2"], "label_kind": "int"}, {"label": [1, 2], "score": [0.75, 0.75]}),
        ("_label", {"labels": ["false", "true"], "label_kind": "bool"}, {"label": [False, True], "score": [0.75] * 2}),
        ("_outputs", {}, {"outputs": [[np.log(3), 0.0], [0.0, np.log(3)]]}),
        ("_labels", {"labels": ["a", "b"]}, {"labels": [["a", "b"]] * 2, "scores": [[0.75, 0.5], [0.5, 0.75]]}),
        (
            "_labels",
            {"labels": ["a", "b"], "thresholds": [0.75, 0.76]},
            {"labels": [["a"], []], "scores": [[0.75, 0.5], [0.5, 0.75]]},
        ),
        (
            "_values",
            {"labels": ["a", "b"], "scales": [2.0, 1.0], "means": [1.0, 0.0]},
            {"a": [2 * np.log(3) + 1, 1.0], "b": [0.0, np.log(3)]},
        ),
        ("_values", {"labels": ["a", "b"]}, {"a": [np.log(3), 0.0], "b": [0.0, np.log(3)]}),
    ],
)
def test_answers_without_raypath(answer: str, metadata: dict[str, Any], wanted: dict[str, Any]) -> None:
    model = _module().TextModel()
    model.metadata = metadata
    logits = np.log(np.array([[3.0, 1.0], [1.0, 3.0]]))
    if answer == "_labels" and "thresholds" in metadata:
        logits = logits + 1e-12
    found = getattr(model, answer)(logits)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        if name in ("label", "labels"):
            assert found[name] == values
        else:
            np.testing.assert_allclose(found[name], values)
