"""Components: a file in this folder is a step, named for its verb; the folders are the machinery of the steps."""

from raypath.components.core.artifacts import (
    Artifact,
    Configuration,
    Dataset,
    Endpoint,
    Model,
    Release,
    Report,
    Settings,
    Splits,
)
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import (
    DataError,
    GraphError,
    ParamsError,
    PlatformError,
    RaypathError,
    Unavailable,
    UserError,
)
from raypath.components.core.params import NonNegative, Params
from raypath.components.core.workflow import workflow

__all__ = [
    "Artifact",
    "Configuration",
    "Context",
    "DataError",
    "Dataset",
    "Endpoint",
    "GraphError",
    "Model",
    "NonNegative",
    "Params",
    "ParamsError",
    "PlatformError",
    "RaypathError",
    "Release",
    "Report",
    "Settings",
    "Splits",
    "Unavailable",
    "UserError",
    "component",
    "workflow",
]
