"""Raypath: from a team's own data to a model in service, on Ray.

The Python interface. Nothing heavy is imported before it is used:

    import raypath

    run = raypath.run("text_classification", {"read.uri": "mine.csv", "registry.name": "topics"})
    print(run.metrics["macro_f1"], run.endpoint)
    with run.client() as client:
        print(client.predict("Great taste, and it arrived early")[0].label)
    raypath.down()
"""

import importlib as _importlib
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from raypath.components.core.artifacts import (
        Artifact,
        DataReport,
        Dataset,
        Endpoint,
        Model,
        Release,
        Report,
        Settings,
        Splits,
    )
    from raypath.components.core.component import Component, component
    from raypath.components.core.context import Context
    from raypath.components.core.errors import (
        DataError,
        GraphError,
        ParamsError,
        PlatformError,
        RaypathError,
        StepFailed,
        StoreError,
        Unavailable,
        UserError,
    )
    from raypath.components.core.params import Fraction, NonNegative, Params, Positive, Seconds, Source
    from raypath.components.core.workflow import Workflow, workflow
    from raypath.components.inference.local_model import LocalModel
    from raypath.components.inspection.report import Finding, InspectionReport
    from raypath.components.serving.client.client import Client
    from raypath.components.serving.client.errors import RequestError, TooManyRequests
    from raypath.components.tasks.base import Task
    from raypath.components.tasks.responses import Embeddings, Prediction, Predictions
    from raypath.deploy.api.inspection import inspect
    from raypath.deploy.api.models import export, load, models, promote, rollback
    from raypath.deploy.api.plans import plan
    from raypath.deploy.api.results import (
        EndpointMessage,
        EndpointStatus,
        ModelVersion,
        Plan,
        PlannedStep,
        Promotion,
        ServiceStatus,
        Status,
    )
    from raypath.deploy.api.run_results import Run, Step
    from raypath.deploy.api.runs import run, runs
    from raypath.deploy.api.security.cards import card
    from raypath.deploy.api.security.compliance import review
    from raypath.deploy.api.security.risk import risk
    from raypath.deploy.api.services import down, status, up

_HOME = {
    "raypath.components.core.artifacts": (
        "Artifact", "DataReport", "Dataset", "Endpoint", "Model", "Release", "Report", "Settings", "Splits",
    ),
    "raypath.components.core.component": ("Component", "component"),
    "raypath.components.core.context": ("Context",),
    "raypath.components.core.errors": (
        "DataError", "GraphError", "ParamsError", "PlatformError", "RaypathError", "StepFailed", "StoreError",
        "Unavailable", "UserError",
    ),
    "raypath.components.core.params": ("Fraction", "NonNegative", "Params", "Positive", "Seconds", "Source"),
    "raypath.components.core.workflow": ("Workflow", "workflow"),
    "raypath.components.inference.local_model": ("LocalModel",),
    "raypath.components.inspection.report": ("Finding", "InspectionReport"),
    "raypath.components.serving.client.client": ("Client",),
    "raypath.components.serving.client.errors": ("RequestError", "TooManyRequests"),
    "raypath.components.tasks.base": ("Task",),
    "raypath.components.tasks.responses": ("Embeddings", "Prediction", "Predictions"),
    "raypath.deploy.api.inspection": ("inspect",),
    "raypath.deploy.api.models": ("export", "load", "models", "promote", "rollback"),
    "raypath.deploy.api.plans": ("plan",),
    "raypath.deploy.api.results": (
        "EndpointMessage", "EndpointStatus", "ModelVersion", "Plan", "PlannedStep", "Promotion", "ServiceStatus",
        "Status",
    ),
    "raypath.deploy.api.run_results": ("Run", "Step"),
    "raypath.deploy.api.runs": ("run", "runs"),
    "raypath.deploy.api.security.compliance": ("review",),
    "raypath.deploy.api.security.risk": ("risk",),
    "raypath.deploy.api.security.cards": ("card",),
    "raypath.deploy.api.services": ("down", "status", "up"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Artifact",
    "Client",
    "Component",
    "Context",
    "DataError",
    "DataReport",
    "Dataset",
    "Embeddings",
    "Endpoint",
    "EndpointMessage",
    "EndpointStatus",
    "Finding",
    "Fraction",
    "GraphError",
    "InspectionReport",
    "LocalModel",
    "Model",
    "ModelVersion",
    "NonNegative",
    "Params",
    "ParamsError",
    "Plan",
    "PlannedStep",
    "PlatformError",
    "Positive",
    "Prediction",
    "Predictions",
    "Promotion",
    "RaypathError",
    "Release",
    "Report",
    "RequestError",
    "Run",
    "Seconds",
    "ServiceStatus",
    "Settings",
    "Source",
    "Splits",
    "Status",
    "Step",
    "StepFailed",
    "StoreError",
    "Task",
    "TooManyRequests",
    "Unavailable",
    "UserError",
    "Workflow",
    "card",
    "component",
    "down",
    "export",
    "inspect",
    "load",
    "models",
    "plan",
    "promote",
    "review",
    "risk",
    "rollback",
    "run",
    "runs",
    "status",
    "up",
    "workflow",
]


def __getattr__(name: str) -> _Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
