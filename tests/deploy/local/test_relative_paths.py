"""Relative paths in settings are resolved where the user is; addresses are left as they are."""

from pathlib import Path

import pytest

from raypath.components.predict import PredictParams
from raypath.deploy.local.platform import _absolute


@pytest.mark.parametrize("model", ["models:/prices/1", "models:/prices@champion", "s3://bucket/model", "/models/mine"])
def test_an_address_is_left_as_it_is(model: str) -> None:
    given = PredictParams(model=model).model_dump()
    assert _absolute(PredictParams, given) == given


def test_a_relative_path_is_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = _absolute(PredictParams, PredictParams(model="mine").model_dump())
    assert found is not None
    assert found["model"] == f"{tmp_path}/mine"
