"""Launcher for an existing Ray cluster: submit `raypath.deploy.ray_cluster.driver` through the Jobs API and follow it.

The run continues without this machine. The same command again attaches to it, or resumes it after it has stopped.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raypath.components.core.artifacts import Release
from raypath.components.core.errors import UserError
from raypath.components.core.params import Params, Seconds
from raypath.components.data.streaming import shard_cache
from raypath.components.models import bf16
from raypath.components.tracking import http
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.execution.run_history import Run
from raypath.deploy.launchers import RunRequest
from raypath.deploy.ray_cluster.driver import SUBMITTER, ray_environment, versions
from raypath.deploy.ray_cluster.jobs_api import JobsApiClient
from raypath.deploy.ray_cluster.preflight import check_capacity
from raypath.deploy.remote.follow import attach_if_running, follow, new_run, report
from raypath.deploy.remote.package import Package, pack

_PASSED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Environment variables that are passed to the job. No secrets: Ray's dashboard shows them."""


class RayParams(Params):
    """Settings of a run on a Ray cluster."""

    store: str = ""
    """Artifact store that all nodes reach: s3://BUCKET/FOLDER or a mounted folder; "" takes RAYPATH_STORE."""
    home: str = ""
    """Raypath's folder on the nodes; "" takes the store if that is a folder, else ~/.raypath."""
    mlflow: str = ""
    """URL of the MLflow server as the nodes reach it, http://HOST:PORT; "" takes MLFLOW_TRACKING_URI."""
    serve_url: str = ""
    """URL of the cluster's Ray Serve; "" is http://127.0.0.1:8000 on the head."""
    same_versions: bool = True
    """Reject a cluster whose version of Ray or Python differs from this machine's."""
    reconnect_timeout: Seconds = 600.0
    """Seconds to keep reconnecting after a lost connection."""


PARAMS = RayParams


def run(request: RunRequest, params: RayParams) -> None:
    """Submit the job, or attach where it runs already, and follow it to its end."""
    check_steps(request.graph, request.fresh)
    jobs = JobsApiClient(request.address)
    _check_cluster(jobs, params)
    _check_mlflow(request, params)
    if attach_if_running(request, jobs, params.reconnect_timeout):
        return
    check_capacity(request.graph, jobs.nodes())
    package = pack(Path.cwd(), request.graph, request.home)
    for warning in package.warnings:
        report(f"warning: {warning}")
    run = new_run(request, jobs.address)
    run.job_id = f"{run.id}-{secrets.token_hex(2)}"
    run.save(request.home)
    uri = jobs.upload(package.name, package.data)
    jobs.submit(run.job_id, request.driver_command(run.id), _environment(uri, params), {"raypath": run.id})
    follow(request.home, run, jobs, params.reconnect_timeout)


def render(request: RunRequest, params: RayParams) -> str:
    """The job submission as JSON."""
    package: Package = pack(Path.cwd(), request.graph, request.home)
    body = {"entrypoint": request.driver_command("RUN"), "runtime_env": _environment(f"gcs://{package.name}", params)}
    return json.dumps(body, indent=2) + "\n"


def attach(home: Path, run: Run) -> None:
    """Follow a run that was submitted from here."""
    follow(home, run, JobsApiClient(run.cluster), RayParams().reconnect_timeout)


def _check_cluster(jobs: JobsApiClient, params: RayParams) -> None:
    """Raise UserError for another version of Ray; warn of a cluster without authentication."""
    there, here = jobs.version(), versions()["Ray"]
    if params.same_versions and there != here:
        what = f"the cluster runs Ray {there}, and this machine {here}"
        raise UserError(what, fix=f"pip install ray=={there} here, or set -s ray.same_versions=false")
    if jobs.is_open():
        report(f"warning: {jobs.address} accepts jobs from anyone; start Ray with RAY_AUTH_MODE=token")
    parts = urlsplit(jobs.address)
    if jobs.has_token and parts.scheme == "http" and not http.is_loopback(jobs.address):
        report(f"warning: the token is sent to {parts.hostname} unencrypted; use https or a tunnel")


def _check_mlflow(request: RunRequest, params: RayParams) -> None:
    needs = [node.name for node in request.graph.nodes if node.component.output is Release]
    if needs and not _mlflow(params):
        fix = "set -s ray.mlflow=http://HOST:PORT as the cluster's nodes reach it"
        raise UserError(f"step {needs[0]} needs an MLflow server, and none is set", fix=fix)


def _environment(package_uri: str, params: RayParams) -> dict[str, Any]:
    store = params.store or os.environ.get("RAYPATH_STORE", "")
    home = params.home or ("~/.raypath" if "://" in store or not store else store)
    submitter = json.dumps(versions()) if params.same_versions else ""
    variables = ray_environment() | {name: os.environ[name] for name in _PASSED if os.environ.get(name)}
    variables |= bf16.passed_environment() | shard_cache.passed_environment()
    variables |= {
        "RAYPATH_HOME": home,
        "RAYPATH_STORE": store,
        "RAYPATH_SERVE_URL": params.serve_url,
        "MLFLOW_TRACKING_URI": _mlflow(params),
        SUBMITTER: submitter,
    }
    return {"working_dir": package_uri, "env_vars": {name: value for name, value in variables.items() if value}}


def _mlflow(params: RayParams) -> str:
    return params.mlflow or os.environ.get("MLFLOW_TRACKING_URI", "")
