"""Client for Kubeflow's API: submit a pipeline, follow a run, describe a recurring run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raypath.components.core.errors import PlatformError, Unavailable, UserError
from raypath.components.core.uris import LOOPBACK
from raypath.deploy.kubeflow.pipeline import kfp

TOKEN = "KUBEFLOW_TOKEN"
"""Environment variable with the token for the API, where it requires one."""
TERMINAL = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
RECONNECT_TIMEOUT = 60.0
"""Seconds to keep retrying an API that does not answer while a run is followed."""
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def connect(address: str) -> Any:
    """Create kfp's client. Raises UserError for a missing address, or one at which nothing answers."""
    kfp()
    if not address:
        raise UserError(
            "--on kubeflow needs the API's address",
            fix="give --address http://localhost:8080, say",
        )
    parts = urlsplit(address if "//" in address else f"//{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--address {address} is not an HTTP URL", fix="give http://... or https://...")
    token = os.environ.get(TOKEN, "")
    if token and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UserError(f"${TOKEN} would be sent unencrypted", fix="give an https:// address")
    try:
        socket.create_connection(
            (
                parts.hostname,
                parts.port or {"http": 80, "https": 443}[parts.scheme],
            ),
            10,
        ).close()
    except OSError as error:
        fix = "check --address; `kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80` forwards it"
        raise UserError(f"no Kubeflow answers at {address}: {error}", fix=fix) from None
    from kfp.client import Client

    with warnings.catch_warnings():
        # kfp warns that it does not support Kubeflow Pipelines 1.
        warnings.simplefilter("ignore", FutureWarning)
        return _call(lambda: Client(host=address, existing_token=token or None))


def submit(client: Any, text: str, name: str, experiment: str, namespace: str | None) -> str:
    """Submit a run of a pipeline; returns its id. Raises UserError, PlatformError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.yaml")
        file.write_text(text, encoding="utf-8")
        named = {"run_name": f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}", "experiment_name": experiment}
        # kfp prints URLs of its own.
        with contextlib.redirect_stdout(io.StringIO()):
            made = _call(lambda: client.create_run_from_pipeline_package(str(file), namespace=namespace, **named))
    return str(made.run_id)


def follow(client: Any, run: str, name: str, seconds: float, pause: float = 5.0) -> None:
    """Follow a run to its end and print each change of a step. Raises PlatformError for a failure or a timeout."""
    printed: dict[str, str] = {}
    deadline, last_contact = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < deadline:
        try:
            found = _call(lambda: client.get_run(run))
            last_contact = time.monotonic()
        except Unavailable:
            if time.monotonic() - last_contact > RECONNECT_TIMEOUT:
                raise
            time.sleep(pause)
            continue
        now = _states(found)
        for step, state in now.items():
            if printed.get(step) != state:
                print(f"{step}: {state.lower()}", flush=True)
        printed = now
        if found.state in TERMINAL:
            return _ended(found.state, name, now)
        time.sleep(pause)
    raise PlatformError(f"{name} did not end within {seconds:g} s", fix="the run continues; see Kubeflow's page")


def recurring(text: str, name: str, about: str, cron: str, namespace: str | None) -> str:
    """A recurring run as JSON, for POST ADDRESS/apis/v2beta1/recurringruns."""
    run: dict[str, Any] = {
        "display_name": name,
        "description": about,
        "mode": "ENABLE",
        # Missed runs are not repeated, and runs do not overlap.
        "no_catchup": True,
        "max_concurrency": "1",
        "trigger": {"cron_schedule": {"cron": with_seconds(cron)}},
        "pipeline_spec": specification(text),
    }
    return json.dumps(run | ({"namespace": namespace} if namespace else {}), indent=1) + "\n"


def specification(text: str) -> dict[str, Any]:
    """Convert the documents of a pipeline's YAML to the form of the API."""
    import yaml

    pipeline, *rest = list(yaml.safe_load_all(text))
    return {"pipeline_spec": pipeline, "platform_spec": rest[0]} if rest else pipeline


def with_seconds(cron: str) -> str:
    """Convert a crontab(5) expression for Kubeflow: seconds come first, and Sunday is 0 only."""
    if cron.startswith("@"):
        return cron
    *fields, days = cron.split()
    return " ".join(["0", *fields, ",".join(_day(part) for part in days.split(","))])


def _day(part: str) -> str:
    """Convert a part of the weekday field; a range that ends on Sunday is listed day by day."""
    span, slash, step = part.partition("/")
    first, dash, last = span.lower().partition("-")
    if not dash:
        return ("0" if span == "7" else span) + slash + step
    if last not in ("7", "sun"):
        return part
    begin = _DAYS.index(first) if first in _DAYS else int(first)
    return ",".join(str(day % 7) for day in range(begin, 8, int(step or 1)))


def _states(run: Any) -> dict[str, str]:
    """The state of each step, without the driver tasks that Kubeflow adds."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    named = [(task.display_name, str(task.state or "")) for task in tasks]
    return {name: state for name, state in named if state and name and not name.endswith("-driver")}


def _ended(state: str, name: str, steps: dict[str, str]) -> None:
    if state in ("SUCCEEDED", "SKIPPED"):
        print(f"{name}: done")
        return
    failed = ", ".join(step for step, how in steps.items() if how == "FAILED")
    what = f"{name} {state.lower()}" + (f" at {failed}" if failed else "")
    raise PlatformError(what, fix="see the step's log on Kubeflow's page; another run resumes from there")


def _call(request: Any) -> Any:
    """Call the API. Raises UserError for a rejected request, Unavailable where it does not answer."""
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return request()
    except ApiException as error:
        reason = _reason(error)
        if error.status in (401, 403):
            raise UserError(f"Kubeflow denies access: {reason}", fix=f"set ${TOKEN}, or kubeflow.namespace") from None
        if error.status and 400 <= error.status < 500:
            raise UserError(f"Kubeflow rejects the request: {reason}", fix="check `raypath render`") from None
        raise Unavailable(f"Kubeflow failed: {reason}", fix="try again") from None
    except (HTTPError, TimeoutError, OSError) as error:
        raise Unavailable(f"Kubeflow does not answer: {type(error).__name__}", fix="check --address") from None


def _reason(error: Any) -> str:
    try:
        body = json.loads(error.body)
        return str(body.get("error_message") or body.get("message") or body.get("error") or error.reason)[:300]
    except (ValueError, TypeError, AttributeError):
        return f"{error.status} {error.reason}"
