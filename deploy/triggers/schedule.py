"""Schedule a workflow: `raypath schedule WORKFLOW --cron "0 3 * * 1" --on local|kuberay|kubeflow`.

local      a line for crontab
kuberay    a suspended RayJob and a CronJob that starts copies of it; or a RayCronJob, with KubeRay's feature gate
kubeflow   a recurring run
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.models import bf16
from raypath.deploy.launchers import RunRequest, format_setting

PASSED = (
    "RAYPATH_STORE",
    "RAYPATH_SHARD_CACHE",
    "MLFLOW_TRACKING_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
)
"""Environment variables that a line for crontab repeats. No secrets: others may read it."""
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_NAMES = {
    3: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    4: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_SHORT = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def render(request: RunRequest, cron: str, on: str, params: Any) -> str:
    """Render the schedule: a crontab line, manifests, or a recurring run. Raises ParamsError, UserError."""
    check(cron)
    if on == "local":
        return crontab_line(request, cron)
    if on == "kuberay":
        return _on_kuberay(request, cron, params)
    from raypath.deploy.kubeflow import launcher as kubeflow

    return kubeflow.schedule(request, cron, params)


def check(cron: str) -> None:
    """Raise ParamsError for an expression that is not valid in crontab(5)."""
    if cron in _SHORT:
        return
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise ParamsError(f"--cron {cron!r} has {len(fields)} fields; wanted 5", fix='such as --cron "0 3 * * 1"')
    for number, text in enumerate(fields):
        for part in text.split(","):
            _check_part(part, number, cron)


def _check_part(part: str, number: int, cron: str) -> None:
    name, low, high = _FIELDS[number]
    span, _, step = part.partition("/")
    first, dash, last = span.partition("-")
    bounds = [first, last] if dash else [first]
    values = [low, high] if span == "*" else [_value(each, number) for each in bounds]
    steps = not step or (step.isascii() and step.isdigit() and int(step) > 0)
    if ("/" in part and not step) or not steps or any(v is None or not low <= v <= high for v in values):
        raise ParamsError(
            f"--cron {cron!r}: {part!r} is not a valid {name}; wanted {low}-{high}", fix="see `man 5 crontab`"
        )


def _value(text: str, number: int) -> int | None:
    names = _NAMES.get(number, [])
    if text.lower() in names:
        return names.index(text.lower()) + (1 if number == 3 else 0)
    return int(text) if text.isdigit() and text.isascii() else None


def crontab_line(request: RunRequest, cron: str) -> str:
    """The line for `crontab -e`. An overlapping run waits for the lock of the step that the other one runs."""
    from pathlib import Path

    words = [sys.executable, "-m", "raypath.deploy.cli.main", "run", request.workflow]
    for key, value in request.overrides.items():
        words += ["-s", f"{key}={format_setting(value)}"]
    log = request.home / "schedule.log"
    # cron starts commands with a nearly empty environment.
    variables = {"RAYPATH_HOME": str(request.home)} | bf16.passed_environment()
    variables |= {name: os.environ[name] for name in PASSED if os.environ.get(name)}
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    line = f"cd {shlex.quote(str(Path.cwd()))} && {assignments} {shlex.join(words)} >> {shlex.quote(str(log))} 2>&1"
    # In crontab an unescaped % ends the command.
    return f"{cron} {line.replace('%', chr(92) + '%')}\n"


def _on_kuberay(request: RunRequest, cron: str, params: Any) -> str:
    from raypath.deploy.kubernetes import launcher as kuberay
    from raypath.deploy.kubernetes import manifests as kube
    from raypath.deploy.remote.package import check_visible_to_pods

    check_visible_to_pods(request.graph, "/store")
    # The CronJob's Jobs are named NAME-MINUTES (11 characters more), and their RayJobs NAME-MINUTES-ray.
    name = kuberay.job_name(request, params, 32)
    if params.raycronjob:
        return kube.text([_raycronjob(request, name, cron, params)])
    template = kuberay.rayjob_manifest(request, params)
    template["spec"]["suspend"] = True
    if params.queue:
        # Kueue would start a template that is in its queue.
        del template["metadata"]["labels"]
        template["metadata"]["annotations"] = {"raypath.io/queue": params.queue}
    cronjob = kube.template(kube.BASE / "cronjob.yaml")
    cronjob["metadata"] = {"name": name, "namespace": params.namespace}
    cronjob["spec"]["schedule"] = cron
    kube.set_image(cronjob, params.image, params.loaded)
    start = kube.container(cronjob["spec"]["jobTemplate"]["spec"]["template"], "start")
    kube.by_name(start["env"], "TEMPLATE")["value"] = name
    return kube.text([template, cronjob])


def _raycronjob(request: RunRequest, name: str, cron: str, params: Any) -> dict[str, Any]:
    from raypath.deploy.kubernetes import launcher as kuberay

    template = kuberay.rayjob_manifest(request, params)
    metadata = {"name": name, "namespace": params.namespace}
    if params.queue:
        metadata["labels"] = template["metadata"]["labels"]
    spec = {"schedule": cron, "timeZone": "Etc/UTC", "jobTemplate": template["spec"]}
    return {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": metadata, "spec": spec}
