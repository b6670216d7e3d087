"""From an endpoint's settings and the registry to what replicas run with: options of Serve, plans, routes, checks."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import ParamsError, PlatformError
from raypath.components.registry.snapshot import RegistrySnapshot
from raypath.components.serving.control.ray_options import deployment_options, worker_environment
from raypath.components.serving.control.spec_store import parse_spec
from raypath.components.serving.model_versions import LoadFault, ModelVersion, ReplicaPlan, Role
from raypath.components.serving.params import ServeParams, check_decide, check_scale, with_threads
from raypath.components.serving.replica_plan import build_plan
from raypath.components.serving.spec import EndpointSpec


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "RAYPATH_")) or name == "PYTHONPATH":
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_variables")
def test_options_of_a_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    common = {
        **{"max_ongoing_requests": 9, "max_queued_requests": 9, "max_surge_percent": 100},
        **{"backpressure_config": {"status_code": 429, "retry_after_s": 1.0}},
        **{"graceful_shutdown_timeout_s": 35.0, "graceful_shutdown_wait_loop_s": 0.5},
        **{"health_check_period_s": 2.0, "max_constructor_retry_count": 2},
    }
    fixed = ServeParams(replicas=3, cpus=1.5, gpus=0.5, max_ongoing=9)
    actor: dict[str, Any] = {"num_cpus": 1.5, "num_gpus": 0.5}
    assert deployment_options(fixed, {}) == common | {"num_replicas": 3, "ray_actor_options": actor}
    assert worker_environment() == {}
    scaled = ServeParams(replicas=0, max_replicas=4, target_requests=7.5, idle_seconds=60.0, max_ongoing=9)
    given = {"PYTHONPATH": "/p", "RAYPATH_CACHE": "/c", "RAYPATH_PRECISION": "bf16", "OTEL_SERVICE_NAME": "s"}
    for name, value in {**given, "OTEL_EXPORTER_OTLP_HEADERS": "key=hush", "RAYPATH_HOME": "/h"}.items():
        monkeypatch.setenv(name, value)
    assert worker_environment() == given
    assert deployment_options(scaled, {"ray.io/node-id": "n"}) == common | {
        "autoscaling_config": {
            **{"min_replicas": 0, "max_replicas": 4, "target_ongoing_requests": 7.5, "upscale_delay_s": 2.0},
            **{"downscale_delay_s": 60.0, "metrics_interval_s": 1.0, "look_back_period_s": 5.0},
        },
        "ray_actor_options": {
            **{"num_cpus": scaled.cpus, "num_gpus": 0.0},
            **{"runtime_env": {"env_vars": given}, "label_selector": {"ray.io/node-id": "n"}},
        },
    }


SCALE = "set max_replicas to at least replicas; replicas=0 needs max_replicas"


@pytest.mark.parametrize(
    ("replicas", "most", "says"),
    [
        (1, 0, ""),
        (2, 2, ""),
        (0, 1, ""),
        (2, 1, f"replicas=2 with max_replicas=1; {SCALE}"),
        (0, 0, f"replicas=0 with max_replicas=0; {SCALE}"),
    ],
)
def test_scale(replicas: int, most: int, says: str) -> None:
    serve = ServeParams(replicas=replicas, max_replicas=most)
    if not says:
        return check_scale(serve)
    with pytest.raises(ParamsError) as told:
        check_scale(serve)
    assert str(told.value) == says


def test_settings_that_depend_on_others() -> None:
    check_decide(ServeParams(decide=True, canary="challenger:5"))
    check_decide(ServeParams(canary="challenger:5"))
    with pytest.raises(ParamsError) as told:
        check_decide(ServeParams(decide=True))
    fix = "set serve.shadow=challenger or serve.canary=challenger:5"
    assert str(told.value) == f"serve.decide needs a canary or a shadow; {fix}"
    for replicas, most, threads in ((1, 0, 8), (2, 0, 4), (1, 3, 2), (0, 3, 2), (9, 0, 1)):
        assert with_threads(ServeParams(replicas=replicas, max_replicas=most), 8).threads == threads
    assert with_threads(ServeParams(threads=5), 8).threads == 5
    limits = [ServeParams(max_ongoing=n, max_ongoing_per_key=k).max_open for n, k in ((9, 0), (1, 0), (9, 8))]
    assert limits == [4, 1, 8]


class Versions(RegistrySnapshot):
    """A registry of models with aliases and versions."""

    def __init__(self, aliases: dict[str, dict[str, int]], versions: dict[str, list[int]], **tags: str) -> None:
        super().__init__(None)
        self._aliases = aliases
        for name, numbers in versions.items():
            for number in numbers:
                found = SimpleNamespace(name=name, version=str(number), source=f"models:/{name}-{number}", tags=tags)
                self._versions[name, number] = found

    def find(self, name: str, version: int) -> Any:
        return self._versions.get((name, version))

    def by_alias(self, name: str, alias: str) -> Any:
        number = self._aliases.get(name, {}).get(alias)
        return None if number is None else self.find(name, number)


def _endpoint(**serve: Any) -> EndpointSpec:
    return EndpointSpec(name="m", tracking="t", url="http://x", route="/", serve=ServeParams(**serve), options={})


def _plan(aliases: dict[str, int], version: int = 0, running: int = 0, before: str = "", **serve: Any) -> ReplicaPlan:
    known = Versions(
        {"m": aliases, "n": {"champion": 7}}, {"m": [1, 2, 3], "n": [7]}, **{"raypath.previous_champion": before}
    )
    return build_plan(known, _endpoint(**serve), version, running=running, requested_at=5.0)


def _numbers(plan: ReplicaPlan) -> tuple[int, ...]:
    each = (plan.main, plan.fallback, plan.canary, plan.shadow)
    return tuple(0 if found is None else found.version for found in each)


def test_plans_of_replicas() -> None:
    both: dict[str, Any] = {"canary": "challenger:2.5", "shadow": "next", "extra_models": ("n", "m", "none")}
    plan = _plan({"champion": 1, "challenger": 2, "next": 3}, **both)
    assert _numbers(plan) == (1, 0, 2, 3)
    assert (plan.canary_percent, plan.requested_at) == (2.5, 5.0)
    assert [(each.name, each.version) for each in plan.extra_models] == [("n", 7)]
    assert plan.main == ModelVersion(name="m", version=1, source="models:/m-1", tags={"raypath.previous_champion": ""})
    assert [plan.version(role) for role in Role] == [plan.main, plan.canary, plan.shadow]
    assert _numbers(_plan({"champion": 1, "challenger": 1}, canary="challenger:5", shadow="next")) == (1, 0, 0, 0)
    assert _numbers(_plan({"champion": 1}, version=2, running=1)) == (2, 1, 0, 0)
    assert _numbers(_plan({"champion": 1}, version=2, running=2, before="3")) == (2, 3, 0, 0)
    assert _numbers(_plan({"champion": 1}, before="1")) == (1, 0, 0, 0)
    assert _numbers(_plan({"champion": 1}, before="9")) == (1, 0, 0, 0), "it was deleted"
    assert _plan({}) == ReplicaPlan(main=ModelVersion(name="m"))


def test_tags_that_change_while_a_version_serves_are_no_new_plan() -> None:
    tags = {"raypath.a": "1", "raypath.decided": "x", "raypath.rejected": "y", "other": "z"}
    plan = build_plan(Versions({"m": {"champion": 1}}, {"m": [1]}, **tags), _endpoint())
    assert plan.main.tags == {"raypath.a": "1"}


def test_a_spec_of_another_version_is_named() -> None:
    with pytest.raises(PlatformError) as told:
        parse_spec("topics", b"{}")
    fix = "run its workflow again, which replaces it, or stop it with `raypath down`"
    assert str(told.value) == f"endpoint topics was deployed by another version of Raypath; {fix}"
    assert _endpoint(replicas=0, max_replicas=3).max_replicas == 3
    assert [_endpoint(replicas=n).max_replicas for n in (0, 2)] == [1, 2]
    assert LoadFault(name="m", version=3, reason="no file").message() == "version 3 cannot be loaded: no file"
