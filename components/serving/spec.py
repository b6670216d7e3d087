"""Specification of an endpoint: everything a replica needs, sent to it when it is created."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from raypath.components.core.columns import Column
from raypath.components.core.labels import LabelKind
from raypath.components.serving.params import ServeParams


class EndpointSpec(BaseModel):
    """Configuration of an endpoint's replicas. A change replaces the replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str = "text_classification"
    label_kind: LabelKind = LabelKind.STRING
    columns: tuple[Column, ...] = ()
    """Input columns; without any, the only input is a text. With task and label_kind they determine the schemas of
    requests and responses."""
    tasks: tuple[str, ...] = ()
    """Tasks, package.module:Class, that its models may name in addition to the built-in ones."""
    signing: str = ""
    """Folder of the public keys whose signatures on models are trusted, in addition to those in the environment of a
    replica; "" for none."""
    tracking: str
    """URI of the MLflow server."""
    url: str
    """URL of the application, without a trailing slash."""
    route: str
    serve: ServeParams
    access: str = ""
    """Folder of the API keys, visible to every replica; "" disables authentication."""
    usage: str = ""
    """Folder of the usage files; "" takes a subfolder of `access`."""
    predictions: str = ""
    """Folder of the prediction log; "" disables it."""
    poll_seconds: float = 0.0
    """Interval at which replicas poll the registry's aliases; 0: the versions come with the ReplicaPlan alone."""
    options: dict[str, Any]
    """Options of the Ray Serve deployment."""

    @property
    def max_replicas(self) -> int:
        """Largest number of replicas that run at a time."""
        return max(self.serve.max_replicas or self.serve.replicas, 1)
