"""A plan says what the run after it does, for every reason to run a step."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components import Context, Dataset, Params, Unavailable, component, workflow
from raypath.deploy.api.plans import plan
from raypath.deploy.execution import runner as runner_module
from raypath.deploy.execution.run_history import Run, StepState, StepStatus
from raypath.deploy.execution.runner import Runner
from raypath.deploy.store.store import Store
from tests.deploy.execution.in_process import Here, Nobody

OUTSIDE: dict[str, Any] = {"there": True}


class Make(Params):
    """How much."""

    rows: int = 3
    """Rows."""


class Shop(Params):
    """The test's workflow."""

    make: Make = Make()


def _alive(ctx: Context, artifact: Dataset) -> bool:
    if OUTSIDE["there"] is None:
        raise Unavailable("its service is down")
    return bool(OUTSIDE["there"])


@component(version=1)
def make(ctx: Context, params: Make) -> Dataset:
    return Dataset(rows=params.rows // 10)


@component(version=1, alive=_alive)
def publish(ctx: Context, data: Dataset) -> Dataset:
    OUTSIDE["there"] = True
    return Dataset(rows=data.rows)


@workflow
def shop(p: Shop) -> Dataset:
    return publish(make(p.make))


def _planned(home: Path, fresh: tuple[str, ...], settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(step.name, step.action, step.reason) for step in plan(shop, settings, fresh=fresh, home=home).steps]


def _done(home: Path, fresh: tuple[str, ...], settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    runner = Runner(shop.trace(Shop().override(settings)), Store(home).open(), Here(), Nobody())
    runner.execute(fresh)
    action = {"done": "run", "reused": "reuse"}
    return [(step.name, action[str(step.status)], step.reason) for step in runner.run.steps]


def test_a_plan_says_what_the_run_then_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "POLL", 0.0)
    same, waits = "nothing changed", "reused if make makes the same as before"
    make_again, publish_again = ("make", "reuse", same), ("publish", "reuse", same)
    # fresh, settings, what is outside, the plan, and what the run does where the plan depends
    cases: list[tuple[tuple[str, ...], dict[str, Any], bool | None, list[Any], Any]] = [
        ((), {}, True, [("make", "run", "it has not run before"), ("publish", "run", "it has not run before")], None),
        ((), {}, True, [make_again, publish_again], None),
        (
            (),
            {"make.rows": 4},
            True,
            [("make", "run", "make.rows 3 -> 4"), ("publish", "depends", waits)],
            publish_again,
        ),
        ((), {"make.rows": 4}, False, [make_again, ("publish", "run", "what it made no longer exists")], None),
        (("publish",), {"make.rows": 4}, True, [make_again, ("publish", "run", "asked for with --fresh")], None),
    ]
    for fresh, settings, there, wanted, in_the_end in cases:
        OUTSIDE["there"] = there
        assert _planned(tmp_path, fresh, settings) == wanted
        assert _done(tmp_path, fresh, settings) == [*wanted[:-1], in_the_end or wanted[-1]]
    OUTSIDE["there"] = None
    down = "reused if what it made is still there; its service is down now"
    assert _planned(tmp_path, (), {"make.rows": 4}) == [make_again, ("publish", "depends", down)]


def test_seconds_are_those_of_the_latest_execution(tmp_path: Path) -> None:
    """Of the same workflow, rounded to tenths; a step that is reused takes none."""

    def record(name: str, seconds: float, component: str, status: StepStatus = StepStatus.DONE, run: str = "a") -> None:
        step = StepState(name=name, status=status, seconds=seconds, key_inputs={"component": component})
        workflow = "other" if run == "z" else "shop"
        Run(id=run, workflow=workflow, settings_digest="", params={}, started=0.0, steps=[step]).save(tmp_path)

    def planned(settings: dict[str, Any]) -> tuple[Any, ...]:
        found = plan(shop, settings, home=tmp_path)
        return found.seconds, *(step.seconds for step in found.steps)

    Store(tmp_path).open()
    OUTSIDE["there"] = True
    assert planned({}) == (None, None, None)
    record("make", 1.26, make.path)
    assert planned({}) == (None, 1.3, None)
    record("publish", 2.0, publish.path, run="b")
    record("make", 7.0, make.path, run="z")
    record("make", 8.0, "elsewhere:make", run="c")
    record("make", 9.0, make.path, StepStatus.FAILED, run="d")
    assert planned({}) == (3.3, 1.3, 2.0)
    record("make", 4.0, make.path, run="e")
    assert planned({}) == (6.0, 4.0, 2.0)
    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    _done(tmp_path, (), {})
    assert planned({}) == (0.0, 0.0, 0.0)
