"""The step register without MLflow: its tags, requests, errors, and what becomes of a decision."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import Context, Dataset, Model, ParamsError, Report
from raypath.components import register as step
from raypath.components.core.artifacts import Release
from raypath.components.core.context import Tracking
from raypath.components.core.labels import LabelKind
from raypath.components.register import RegisterParams, register
from raypath.components.registry import publish
from raypath.components.registry.evidence import Decision, Rules
from raypath.components.tracking import rest
from raypath.components.tracking.http import Response
from tests.components.recording import Recorder
from tests.components.registry.memory_registry import MemoryRegistry
from tests.raised import raised

Make = Callable[..., Context]
METRICS = {"macro_f1": 0.5, "accuracy": 0.75, "f1/a": 0.25}


def _report(folder: Path | None = None, **data: Any) -> Report:
    model = Model(task="text_classification", base="tiny", labels=("a", "b"), max_length=8, digest="m")
    rows = Dataset(**{"rows": 1200, "source": "reviews.csv", "digest": "t", **data})
    return Report(model=model, data=rows, metrics=METRICS, uri="" if folder is None else str(folder))


def test_the_tags_of_a_version(make_context: Make) -> None:
    ctx = make_context("register", key="k", tracking=Tracking(parent="outer"))
    tags = {
        "raypath.key": "k",
        "raypath.run": "outer",
        "raypath.task": "text_classification",
        "raypath.labels": "2",
        "raypath.base": "tiny",
        "raypath.model_digest": "m",
        "raypath.test_digest": "t",
        "raypath.data": "1,200 rows of reviews.csv",
        "raypath.metric.macro_f1": "0.5",
        "raypath.metric.accuracy": "0.75",
    }
    report = _report()
    assert step._tags(ctx, report.model, report) == tags
    continued = report.model.model_copy(update={"version": "models:/shop/3"})
    assert step._tags(ctx, continued, report) == {**tags, "raypath.start": "models:/shop/3"}
    assert step._tags(ctx, report.model, _report(source=""))["raypath.data"] == ""


def test_settings_of_the_gate() -> None:
    params = RegisterParams(confidence=0.75, margin=0.5, slice_margin=0.25)
    assert step._rules(params) == Rules(confidence=0.75, margin=0.5, slice_margin=0.25)
    assert step._rules(RegisterParams()) == Rules()
    assert step._metric(_report(), RegisterParams()) == "macro_f1"
    assert step._metric(_report(), RegisterParams(better_on="accuracy")) == "accuracy"
    step._check_metric(_report(), "f1/a")
    text = "ParamsError: setting better_on got {}, which the report lacks; {}"
    for metric, fix in (("macro_f2", "did you mean macro_f1?"), ("xyz", "it has macro_f1, accuracy")):
        found = raised(lambda metric=metric: step._check_metric(_report(), metric))  # type: ignore[misc]
        assert found == text.format(metric, fix)
    talk = _report()
    model = talk.model.model_copy(update={"task": "text_generation", "label_kind": LabelKind.NONE})
    talk = talk.model_copy(update={"model": model, "metrics": {"length": 3.0, "stopped": 1.0}})
    step._check_metric(talk, "stopped")
    with pytest.raises(ParamsError, match="better_on got length; a version is neither better nor worse by it"):
        step._check_metric(talk, "length")


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "9" * 100])
def test_names_of_models(name: str) -> None:
    assert RegisterParams(name=name).name == name


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "9" * 101, "ä", "a\n"])
def test_names_that_are_rejected(name: str) -> None:
    wanted = "wanted 1 to 100 letters, digits, '.', '_' or '-', of which the first is a letter or digit"
    with pytest.raises(ValueError, match=re.escape(f"Value error, {wanted} [")):
        RegisterParams(name=name)


class Rest:
    """MLflow's REST API: responses by the last part of the path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, Any] = {}
        self.asked: list[Any] = []
        monkeypatch.setattr(rest.http, "send", self._send)
        monkeypatch.setattr(rest.login, "headers", lambda uri: {"for": uri})

    def _send(self, method: str, url: str, **options: Any) -> Response:
        self.asked.append((method, url, options))
        given = self.found[url.partition("?")[0].rpartition("/")[2]]
        if isinstance(given, Exception):
            raise given
        return given if isinstance(given, Response) else Response(200, json.dumps(given).encode())


def test_a_release_is_alive_while_the_registry_has_it(monkeypatch: pytest.MonkeyPatch, make_context: Make) -> None:
    registry, release = Rest(monkeypatch), Release(name="shop", version=3, alias="challenger", reason="", serving=2)
    ctx = make_context("register", key="k", tracking=Tracking(uri="http://host/"))

    def alive(tags: dict[str, str], champion: Any, key: str = "k") -> bool:
        listed = [{"key": name, "value": value} for name, value in tags.items()]
        registry.found = {"get": {"model_version": {"tags": listed}}, "alias": champion}
        return step._alive(dataclasses.replace(ctx, key=key), release)

    decided, serving = {"raypath.decided": "challenger", "raypath.key": "k"}, {"model_version": {"version": "2"}}
    assert alive(decided, serving)
    assert alive(decided, serving, key="")
    assert not alive(decided, serving, key="other")
    assert not alive({"raypath.key": "k"}, serving)
    assert not alive(decided, {"model_version": {"version": "3"}})
    assert not alive(decided, {})
    options = {"headers": {"for": "http://host/"}, "timeout": 5.0, "follow_redirects": True}
    assert registry.asked[:2] == [
        ("GET", "http://host/api/2.0/mlflow/model-versions/get?name=shop&version=3", options),
        ("GET", "http://host/api/2.0/mlflow/registered-models/alias?name=shop&alias=champion", options),
    ]
    registry.found = {"get": Response(404, b""), "alias": Response(400, b"")}
    assert not step._alive(ctx, release)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (ConnectionError(), "MLflow does not respond at http://host; start it with `raypath up`"),
        (Response(500, b"{}"), "MLflow at http://host returned status 500; see the MLflow server's log"),
        (Response(200, b"[]"), "MLflow at http://host returned status 200; see the MLflow server's log"),
        (Response(300, b"{}"), "MLflow at http://host returned status 300; see the MLflow server's log"),
        (
            Response(401, b"{}"),
            "MLflow at http://host returned status 401; set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD",
        ),
    ],
)
def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, response: Any, text: str) -> None:
    Rest(monkeypatch).found = {"get": response}
    assert raised(lambda: rest.get("http://host", "x/get")) == f"Unavailable: {text}"
    if isinstance(response, ConnectionError):
        found = raised(lambda: rest.get("", "x/get"))
        assert found == "Unavailable: MLflow does not respond at no URI; start it with `raypath up`"


def test_what_is_signed_with_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_context: Make) -> None:
    recorded: list[Any] = []
    monkeypatch.setattr(
        "raypath.components.inference.golden_examples.record",
        lambda folder, workers: recorded.append((folder, workers)),
    )
    ctx, folder = make_context("register"), tmp_path / "model"
    folder.mkdir()
    (folder / "test_outputs.npy").write_text("of another split")
    step._complete(ctx, _report(), folder)
    assert list(folder.iterdir()) == []
    (tmp_path / "report").mkdir()
    step._complete(ctx, _report(tmp_path / "report"), folder)
    assert list(folder.iterdir()) == []
    (tmp_path / "report" / "test_outputs.npy").write_text("outputs")
    step._complete(ctx, _report(tmp_path / "report"), folder)
    assert (folder / "test_outputs.npy").read_text() == "outputs"
    assert recorded == [(folder, 2)] * 3


def test_the_precision_is_selected_on_valid(monkeypatch: pytest.MonkeyPatch, make_context: Make) -> None:
    notes, asked, reports = Recorder(), [], []
    ctx, model, valid = make_context("register", track=notes), _report().model, Dataset(rows=9)
    monkeypatch.setattr(Context, "report", lambda _, *given: reports.append(given))

    def select(**settings: Any) -> tuple[Model, dict[str, str]]:
        given = settings.pop("valid", None)
        return step._with_precision(ctx, model, RegisterParams(**settings), "f1", given)

    def prepare(*given: Any) -> Any:
        asked.append(given[:-1])
        given[-1]("measuring")
        return choice

    monkeypatch.setattr("raypath.components.inference.precision_selection.prepare", prepare)
    choice: Any = None
    assert select() == (model, {})
    assert asked == []
    assert select(valid=valid, tolerance=0.25) == (model, {})
    assert asked == [(Path(model.uri), ctx.scratch / "model", valid, 2, "auto", 0.25, "f1")]
    assert reports == [(0, 3, "measuring")]
    choice = SimpleNamespace(precision="bf16", rows_per_second=12.5)
    made, tags = select(precision="bf16")
    assert made.uri == str(ctx.scratch / "model")
    assert tags == {"raypath.precision": "bf16", "raypath.precision_rows_per_second": "12.5"}
    assert notes.files == [("", "precision.json")]


@pytest.mark.parametrize(("there", "decided", "promoted"), [(0, True, True), (0, True, False), (7, False, True)])
def test_a_version_is_registered(
    there: int, decided: bool, promoted: bool, monkeypatch: pytest.MonkeyPatch, make_context: Make
) -> None:
    notes, reports, calls, registry = Recorder(), [], [], MemoryRegistry(shop=7)
    ctx = make_context("register", key="k", track=notes)
    alias = "champion" if promoted else "challenger"

    class Contest:
        def __init__(self, *given: Any) -> None:
            assert given == (ctx, report, "macro_f1", Rules())
            self.decision = Decision(promoted, "because", 0.75) if decided else None

        def decide(self) -> None: ...

        def resume(self, *given: Any) -> None:
            calls.append(("resume", *given[1:]))

    @contextlib.contextmanager
    def client(uri: str) -> Iterator[MemoryRegistry]:
        yield registry

    def put(_: Any, __: Any, model: Model, name: str, tags: dict[str, str], complete: Any) -> int:
        calls.append(("publish", model.uri, name, sorted(tags)))
        return 7

    package = "raypath.components.registry"
    monkeypatch.setattr(f"{package}.client.mlflow_client", client)
    monkeypatch.setattr(publish, "find_published", lambda *given: there)
    monkeypatch.setattr(publish, "publish", put)
    monkeypatch.setattr("raypath.components.inference.batch.comparison.Contest", Contest)
    monkeypatch.setattr(f"{package}.gate.resolve_alias", lambda *given: (alias, "because"))
    champion = SimpleNamespace(version=7 if promoted else 2)
    monkeypatch.setattr(f"{package}.aliases.trusted_champion", lambda *given: champion)
    monkeypatch.setattr(step, "_with_precision", lambda _, model, *__: (model, {"raypath.precision": "bf16"}))
    monkeypatch.setattr(Context, "report", lambda _, *given: reports.append(given))
    report = _report()
    found = register.fn(ctx, report.model, report, RegisterParams(name="shop"))
    assert found == Release(
        name="shop",
        version=7,
        alias=alias,
        reason="because",
        serving=7 if promoted else 2,
        chance=0.75 if decided else 0.0,
        task="text_classification",
        metrics={"macro_f1": 0.5, "accuracy": 0.75},
    )
    assert reports == [(1, 3, "uploading"), (2, 3, "comparing with the champion")]
    assert notes.tagged == {"raypath.version": "shop/7", "raypath.reason": "because"}
    written = json.loads((ctx.out / "release.json").read_text())
    assert written == {"name": "shop", "version": 7, "reason": "because"}
    shown = ["raypath.details", "raypath.key", "raypath.metric.macro_f1"]
    assert calls[0] == ("publish", "", "shop", shown)
    assert calls[1:] == ([] if decided else [("resume", "shop", 7, True, "because")])
    assert registry.models["shop"].versions[7].description == f"**{alias}**: because\n\n"
