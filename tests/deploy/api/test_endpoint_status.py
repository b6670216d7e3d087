"""Endpoints in the status of a home, of which another Ray, such as that of a RayService, serves one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from raypath.deploy.api.results import EndpointStatus
from raypath.deploy.api.services import _endpoints
from raypath.deploy.execution.run_history import Run, StepState, StepStatus
from tests.local_http import answering


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = {"/healthz": {"name": "letters", "version": 3, "status": "ok"}}.get(self.path)
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(found or {}).encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    with answering(_Handler) as url:
        yield url


def test_endpoints_that_runs_have_made_are_listed_once_while_they_answer(url: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    gone = {"url": f"{url}/gone", "name": "gone", "version": 1}
    for number in range(2):
        artifacts = ({"uri": "rows", "rows": 3}, {"url": url, "name": "letters", "version": number}, gone, None)
        steps = [StepState(name=f"s{n}", status=StepStatus.DONE, artifact=each) for n, each in enumerate(artifacts)]
        Run(id=f"r-{number}", workflow="w", settings_digest="d", params={}, started=0.0, steps=steps).save(tmp_path)
    shown = {"status": "ok", "versions": [3], "replicas": 1, "requests_per_second": 0.0, "messages": []}
    assert _endpoints(tmp_path) == [EndpointStatus(name="letters", url=url, **shown)]


def test_the_status_of_replicas_is_asked_for_without_pytorch() -> None:
    """`raypath status` would take twice the processor time."""
    code = "import sys, raypath.components.serving.control.rollout; print({'torch', 'fastapi'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
