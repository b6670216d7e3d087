"""Kubeflow's API: kfp's real client against a server in its place, which speaks the same messages."""

import functools
import importlib.util
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from raypath.components import PlatformError, Unavailable, UserError
from raypath.deploy.kubeflow import api as kubeflow_api
from raypath.deploy.kubeflow import launcher as kubeflow
from raypath.deploy.launchers import prepare
from tests.k8s.manifests import IMAGE
from tests.local_http import answering

pytestmark = pytest.mark.skipif(importlib.util.find_spec("kfp") is None, reason="needs the extra `kubeflow`")
PLACE = {"kubeflow.image": IMAGE, "kubeflow.store": "s3://bucket/team"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """An API that takes runs and lets them go through `states`, one a look."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(kubeflow_api.TOKEN, raising=False)
    monkeypatch.setattr(kubeflow_api, "follow", functools.partial(kubeflow_api.follow, pause=0.01))
    state = SimpleNamespace(runs=[], states=["RUNNING", "SUCCEEDED"], steps={}, refuse=None, tokens=set(), silent=0)

    class Api(BaseHTTPRequestHandler):
        def _answer(self, status: int, body: Any) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def _do(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/apis/v2beta1/")
            state.tokens.add(self.headers["Authorization"])
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
            if path == "healthz":
                return self._answer(200, {"multi_user": False})
            if state.refuse:
                return self._answer(*state.refuse)
            if path == "experiments":
                made = {"experiment_id": "e1", "display_name": "raypath"}
                return self._answer(200, made if self.command == "POST" else {})
            if path == "runs":
                state.runs.append(given)
                return self._answer(200, {"run_id": "r1"})
            if state.silent:
                state.silent -= 1
                return self._answer(503, {"message": "restarting"})
            now = state.states.pop(0) if len(state.states) > 1 else state.states[0]
            tasks = [{"display_name": name, "state": how} for name, how in state.steps.items()]
            return self._answer(200, {"run_id": "r1", "state": now, "run_details": {"task_details": tasks}})

        do_GET = do_POST = _do

        def log_message(self, *_: Any) -> None: ...

    with answering(Api) as state.address:
        yield state


def _run(tmp_path: Path, address: str) -> None:
    _, request, params = prepare("kubeflow", "batch_prediction", PLACE, tmp_path, address=address)
    kubeflow.run(request, params)


def test_data_of_this_machine_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    _, request, params = prepare(
        "kubeflow", "batch_prediction", {**PLACE, "read.uri": "rows.csv"}, tmp_path, address=""
    )
    with pytest.raises(UserError, match=r"rows.csv is on this machine, and pods do not see it; upload it"):
        kubeflow.run(request, params)


def test_a_run_is_submitted_and_followed_to_its_end(
    api: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.states = ["RUNNING", "RUNNING", "SUCCEEDED"]
    api.steps = {"read": "SUCCEEDED", "read-driver": "SUCCEEDED", "predict": "RUNNING"}
    _run(tmp_path, api.address)
    [run] = api.runs
    _, request, params = prepare("kubeflow", "batch_prediction", PLACE, tmp_path)
    spec, platform = yaml.safe_load_all(kubeflow.render(request, params))
    assert run["pipeline_spec"]["pipeline_spec"]["root"]["dag"].keys() == spec["root"]["dag"].keys()
    assert run["pipeline_spec"]["platform_spec"] == platform
    assert run["experiment_id"] == "e1"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"batch-prediction: run r1; see it at {api.address}/#/runs/details/r1"
    assert said[1:] == ["read: succeeded", "predict: running", "batch-prediction: done"]


@pytest.mark.parametrize(
    ("state", "says"), [("FAILED", "batch-prediction failed at predict"), ("CANCELED", "batch-prediction canceled")]
)
def test_a_run_that_fails_names_its_step(state: str, says: str, api: SimpleNamespace, tmp_path: Path) -> None:
    api.states, api.steps = [state], {"read": "SUCCEEDED", "predict": state}
    with pytest.raises(PlatformError, match=says):
        _run(tmp_path, api.address)


def test_an_api_that_restarts_is_waited_for(
    api: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = kubeflow_api.connect(api.address)
    api.silent = 3
    kubeflow_api.follow(client, "r1", "x", 30.0)
    api.silent, api.states = 10**6, ["RUNNING"]
    monkeypatch.setattr(kubeflow_api, "RECONNECT_TIMEOUT", 0.2)
    with pytest.raises(Unavailable, match="Kubeflow failed: restarting"):
        kubeflow_api.follow(client, "r1", "x", 30.0)
    api.silent = 0
    with pytest.raises(PlatformError, match=r"did not end within 0\.3 s"):
        kubeflow_api.follow(client, "r1", "x", 0.3, pause=0.01)


def test_a_token_is_shown_and_never_in_the_clear(
    api: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kubeflow_api.TOKEN, "secret")
    _run(tmp_path, api.address)
    assert "Bearer secret" in api.tokens
    with pytest.raises(UserError, match="would be sent unencrypted; give an https://"):
        _run(tmp_path, "http://kubeflow.example.com")


def test_no_kubeflow_or_one_that_refuses_is_one_line(api: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the API's address; give --address"):
        _run(tmp_path, "")
    with pytest.raises(UserError, match="is not an HTTP URL"):
        _run(tmp_path, "ftp://127.0.0.1")
    with pytest.raises(UserError, match=r"no Kubeflow answers at http://127\.0\.0\.1:9"):
        _run(tmp_path, "http://127.0.0.1:9")
    fix = "set $KUBEFLOW_TOKEN, or kubeflow.namespace"
    for status, body, kind, says in (
        (401, {"error": "Unauthenticated"}, UserError, f"Kubeflow denies access: Unauthenticated; {fix}"),
        (403, {"error_message": "no", "message": "x"}, UserError, f"Kubeflow denies access: no; {fix}"),
        (
            400,
            {"message": "unknown field"},
            UserError,
            "Kubeflow rejects the request: unknown field; check `raypath render`",
        ),
        (500, {"message": "m" * 400}, Unavailable, f"Kubeflow failed: {'m' * 300}; try again"),
    ):
        api.refuse = (status, body)
        with pytest.raises(kind) as told:
            _run(tmp_path, api.address)
        assert str(told.value).startswith(says)
