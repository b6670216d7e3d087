"""The link from a model version to the run that made it, against a real MLflow server."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.registry import client as registry
from raypath.components.registry import publish
from raypath.components.tracking.experiments import experiment_id

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")


def test_a_run_that_is_uploaded_a_moment_later_is_found(mlflow_uri) -> None:
    made: list[str] = []
    with registry.mlflow_client(mlflow_uri) as client:
        home = experiment_id(client, "later")
        create = threading.Timer(
            1.0, lambda: made.append(client.create_run(home, tags={"raypath.id": "outer/later"}).info.run_id)
        )
        start = time.monotonic()
        assert publish._mlflow_run(client, home, "outer/later", 0.0) is None
        assert time.monotonic() - start < publish.WAIT, "without tracking no run is awaited"
        create.start()
        found = publish._mlflow_run(client, home, "outer/later", 60.0)
        create.join()
        assert [found] == made
        assert publish._mlflow_run(client, home, "outer/later", 0.0) == found
        assert publish._mlflow_run(client, home, "outer", 0.0) is None


def test_a_run_that_is_not_uploaded_is_waited_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked, found = [100.0], [], [SimpleNamespace(info=SimpleNamespace(run_id="r"))]

    def search(*given: Any, **named: Any) -> list[Any]:
        asked.append((given, named))
        return found if clock[0] > 101.5 else []

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(publish.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(publish.time, "sleep", sleep)
    client = SimpleNamespace(search_runs=search)
    assert publish._mlflow_run(client, "7", "outer", 1.0) is None
    assert 101.0 < clock[0] < 101.5
    assert asked[0] == ((["7"], "tags.`raypath.id` = 'outer'"), {"max_results": 1})
    assert publish._mlflow_run(client, "7", "outer", 1.0) == "r"
    assert clock[0] < 102.0
