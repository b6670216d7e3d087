"""Inputs of a registered version without Raypath, by MLflow's own check and the code that is stored with a version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
FRAME = pd.DataFrame({"text": ["tea", "cup"]})


def checked(given: object) -> Any:
    """What `mlflow.pyfunc` hands to a version with the signature of `publish`."""
    import mlflow.models.utils
    from mlflow.types import ColSpec, Schema

    return mlflow.models.utils._enforce_schema(given, Schema([ColSpec("string", "text")]))


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from raypath.components.registry.pyfunc_model import TextModel

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
