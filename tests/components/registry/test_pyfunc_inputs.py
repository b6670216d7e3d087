"""Inputs of a registered version without Raypath, by MLflow's own check and the code that is stored with a version."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raypath.components.core.columns import Column
from tests.tiny_classifier import SEVERAL, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
FRAME = pd.DataFrame({"text": ["tea", "cup"]})


def checked(given: object) -> Any:
    """What `mlflow.pyfunc` hands to a version with the signature of `publish`."""
    import mlflow.models.utils
    from mlflow.types import ColSpec, Schema

    return mlflow.models.utils._enforce_schema(given, Schema([ColSpec("string", "text")]))


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from raypath.components.registry.flavors.pyfunc_model import TextModel

    model = tiny_classifier(tmp_path_factory.mktemp("model"))
    version = TextModel()
    version.load_context(SimpleNamespace(artifacts={"model": model.uri}, model_config={}))
    return version


@pytest.mark.parametrize(
    "given",
    [{"text": ["tea", "cup"]}, {"text": np.array(["tea", "cup"])}, [{"text": "tea"}, {"text": "cup"}], FRAME["text"]],
)
def test_two_texts_have_two_answers(version: Any, given: object) -> None:
    pd.testing.assert_frame_equal(version.predict(None, checked(given)), version.predict(None, FRAME))


def test_one_text_has_one_answer(version: Any) -> None:
    for given in ({"text": "tea"}, {"text": ["tea"]}):
        pd.testing.assert_frame_equal(version.predict(None, checked(given)), version.predict(None, FRAME[:1]))
    assert version.predict(None, {"text": ["tea", "cup"]}).equals(version.predict(None, FRAME))
    assert version.predict(None, {"text": "tea"}).equals(version.predict(None, FRAME[:1]))
    assert len(version.predict(None, checked({"text": []}))) == 0


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_missing_text_is_an_error(version: Any, missing: object) -> None:
    for given in ({"text": ["tea", missing]}, pd.DataFrame({"text": ["tea", missing]})):
        with pytest.raises(ValueError, match="text of row 1 is missing"):
            version.predict(None, checked(given))
    with pytest.raises(ValueError, match="text of row 0 is missing"):
        version.predict(None, pd.DataFrame({"text": [missing]}))


@pytest.mark.parametrize("odd", [["tea"], b"tea", 7])
def test_what_is_no_text_is_an_error(version: Any, odd: object) -> None:
    with pytest.raises(ValueError, match=f"text of row 0 is a {type(odd).__name__}; wanted a text"):
        version.predict(None, pd.DataFrame({"text": [odd, "tea"]}))


ROWS = [
    {"title": "tea", "price": 2.50, "new": True, "tags": ["a", "b"], "at": "2025-03-31T09:30:00+02:00"},
    {"title": "cup", "price": None, "new": None, "tags": None, "at": None},
    {"title": None, "price": 1e6, "new": False, "tags": [], "at": "2025-03-31"},
]


@pytest.mark.parametrize("form", ["fields", "pair"])
def test_several_columns_have_the_answers_of_raypath(tmp_path: Path, form: str) -> None:
    from raypath.components.inference.local_model import LocalModel
    from raypath.components.registry.flavors.pyfunc_model import TextModel

    columns = SEVERAL if form == "fields" else (SEVERAL[0], Column(name="body", stored="input.body"))
    names = [column.name for column in columns]
    rows = [{name: row.get(name, "and more") for name in names} for row in ROWS]
    separator = 102 if form == "pair" else None
    model = tiny_classifier(tmp_path / "m", columns=columns, form=form, separator=separator)
    version = TextModel()
    version.load_context(SimpleNamespace(artifacts={"model": model.uri}, model_config={}))
    wanted = LocalModel(Path(model.uri), "m", 1, threads=1).predict(rows)
    for given in (pd.DataFrame(rows), {name: [row[name] for row in rows] for name in names}):
        found = version.predict(None, pd.DataFrame(given))
        assert found["label"].tolist() == [row.label for row in wanted]
        np.testing.assert_allclose(found["score"], [row.score for row in wanted], atol=1e-4)
    with pytest.raises(ValueError, match="column title is missing; wanted title"):
        version.predict(None, pd.DataFrame({"other": ["a"]}))
