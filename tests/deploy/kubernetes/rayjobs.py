"""An HTTPS server that stands in for the Kubernetes API and for KubeRay, with the calls that concern RayJobs."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

JOBS = "/apis/ray.io/v1/namespaces/raypath/rayjobs"


@contextmanager
def rayjobs(account: Path) -> Iterator[SimpleNamespace]:
    """`address`, `objects` by name, the `calls` that were made, `account`: the folder of a pod's certificate and token.

    Nobody takes a job, unless `work` is set: it is done for each new one, and what it raises is why that failed.
    `allowed` may be taken away.
    """
    state = SimpleNamespace(objects={}, calls=[], work=None, allowed=True, account=account)
    context = _certificate(account)
    (account / "token").write_text("a-token\n")
    (account / "namespace").write_text("raypath")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.address = f"https://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _certificate(folder: Path) -> ssl.SSLContext:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder.mkdir(exist_ok=True)
    key, cert = folder / "key.pem", folder / "ca.crt"
    subject = ["-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def _handler(state: SimpleNamespace) -> type[BaseHTTPRequestHandler]:
    class Api(BaseHTTPRequestHandler):
        def _do(self) -> None:
            state.calls.append(self.command)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers["Authorization"] != "Bearer a-token" or not state.allowed:
                status, found = 403, {"message": "pipeline-runner cannot create resource rayjobs"}
            elif self.command == "POST" and self.path == JOBS:
                status, found = _create(state, json.loads(body))
            else:
                status, found = _look(state, self.command, self.path.removeprefix(JOBS))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_GET = do_POST = do_DELETE = _do

        def log_message(self, *_: Any) -> None: ...

    return Api


def _create(state: SimpleNamespace, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    name = job["metadata"]["name"]
    if name in state.objects:
        return 409, {"message": "already exists"}
    state.objects[name] = job
    if state.work:
        Thread(target=_operate, args=(state, job), daemon=True).start()
    return 201, job


def _operate(state: SimpleNamespace, job: dict[str, Any]) -> None:
    job["status"] = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    try:
        state.work(job)
        job["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    except Exception as error:  # noqa: BLE001 - it is told, as KubeRay would
        job["status"] = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": str(error)}


def _look(state: SimpleNamespace, command: str, rest: str) -> tuple[int, dict[str, Any]]:
    """Get or delete /NAME, or list those with a label."""
    if rest.startswith("?"):
        label, _, value = unquote(rest.partition("labelSelector=")[2]).partition("=")
        return 200, {
            "items": [j for j in state.objects.values() if j["metadata"].get("labels", {}).get(label) == value]
        }
    name = rest.lstrip("/")
    if name not in state.objects:
        return 404, {"message": "not found"}
    return 200, state.objects.pop(name) if command == "DELETE" else state.objects[name]
