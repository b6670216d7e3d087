"""The link from a model version to the run that made it, against a real MLflow server."""

import threading
import time

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
