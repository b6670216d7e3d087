"""Wrong arguments of the Python interface are one line that says what was wanted, before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import raypath
from raypath.deploy.api.jobs import changes_of
from raypath.workflows.batch_prediction import BatchPrediction

FLOW: Any = "text_classification"
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no workflow": (
        lambda: raypath.run(None),  # type: ignore[arg-type]
        "workflow is a NoneType; give a name of `raypath list`, package.module:function, or a @workflow",
    ),
    "a function": (
        lambda: raypath.run(len),  # type: ignore[arg-type]
        "workflow is a function len; give a name of `raypath list`, package.module:function, or a @workflow",
    ),
    "a path": (
        lambda: raypath.plan(Path("flow.py")),  # type: ignore[arg-type]
        "workflow is a PosixPath; give a name of `raypath list`, package.module:function, or a @workflow",
    ),
    "a set": (
        lambda: raypath.plan(FLOW, {"tune.lr": {1.0}}),
        "setting tune.lr is a set; give text, a number, true, false, null or a list; quote dates",
    ),
    "an object": (
        lambda: raypath.plan(FLOW, {"read": {"uri": object()}}),
        "setting read.uri is a object; give text, a number, true, false, null or a list; quote dates",
    ),
    "text of a version": (
        lambda: raypath.promote("topics", "1"),  # type: ignore[arg-type]
        "version='1'; wanted an integer; see `raypath.models()`",
    ),
    "a truth value": (
        lambda: raypath.promote("topics", True),
        "version=True; wanted an integer; see `raypath.models()`",
    ),
    "no name": (lambda: raypath.promote(None, 1), "got None; wanted the name of a model; see `raypath.models()`"),  # type: ignore[arg-type]
    "an empty name": (lambda: raypath.rollback(""), "got ''; wanted the name of a model; see `raypath.models()`"),
    "no model": (lambda: raypath.load(None), "got None; wanted the name of a model; see `raypath.models()`"),  # type: ignore[arg-type]
    "a bare name": (
        lambda: raypath.load("topics"),
        "no model folder topics; a registered one is models:/topics@champion",
    ),
    "a folder": (lambda: raypath.load("/nosuch"), "no model folder /nosuch; a registered one is models:/NAME@champion"),
    "a device": (lambda: raypath.load(".", device="moon"), "device='moon' is unknown; use one of auto, cpu, cuda"),  # type: ignore[arg-type]
    "threads": (
        lambda: raypath.load(".", threads=-1),
        "threads=-1; wanted an integer of at least 0; 0 leaves torch's own number",
    ),
    "no URL": (lambda: raypath.Client(None), "got url None; wanted http://... or https://...; see `raypath status`"),  # type: ignore[arg-type]
    "a URL without host": (
        lambda: raypath.Client("http://"),
        "got url 'http://'; wanted http://... or https://...; see `raypath status`",
    ),
    "a port": (
        lambda: raypath.Client("http://127.0.0.1:x"),
        "got url 'http://127.0.0.1:x'; wanted http://... or https://...; see `raypath status`",
    ),
    "a port too large": (
        lambda: raypath.Client("http://127.0.0.1:99999"),
        "got url 'http://127.0.0.1:99999'; wanted http://... or https://...; see `raypath status`",
    ),
    "half an address": (
        lambda: raypath.Client("http://["),
        "got url 'http://['; wanted http://... or https://...; see `raypath status`",
    ),
    "a blank": (
        lambda: raypath.Client("http://a b"),
        "got url 'http://a b'; wanted http://... or https://...; see `raypath status`",
    ),
    "no timeout": (
        lambda: raypath.Client("http://a", timeout=None),  # type: ignore[arg-type]
        "timeout=None; wanted a number above 0; see `help(raypath.Client)` for timeout",
    ),
    "no attempts": (
        lambda: raypath.Client("http://a", attempts=0),
        "attempts=0; wanted a number above 0; see `help(raypath.Client)` for attempts",
    ),
    "a number as key": (lambda: raypath.Client("http://a", 3), "key is a int; give the text of the key"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = WRONG[name]
    with pytest.raises(raypath.UserError) as caught:
        call()
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["clé-of-someone", "two\nlines"])
def test_a_key_that_cannot_be_sent_is_not_printed(key: str) -> None:
    with pytest.raises(raypath.UserError, match="key has characters that no key has") as caught:
        raypath.Client("http://a", key)
    assert key not in str(caught.value)
    assert repr(raypath.Client("http://a", "secret")) == "Client('http://a')"


def test_numbers_of_numpy_are_settings() -> None:
    given = {"finetune.epochs": np.int64(2), "finetune": {"lr": np.float32(0.5)}, "tune.lr": np.array([0.25, 0.5])}
    assert changes_of(given) == {"finetune.epochs": 2, "finetune.lr": 0.5, "tune.lr": [0.25, 0.5]}
    assert {type(value) for value in changes_of(given).values()} == {int, float, list}


def test_of_an_instance_what_differs_from_the_defaults_counts() -> None:
    params = BatchPrediction().override({"read.uri": "a.csv", "predict.batch": 3})
    assert changes_of(params) == {"read.uri": "a.csv", "predict.batch": 3}
    assert changes_of(BatchPrediction()) == {}
