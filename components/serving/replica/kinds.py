"""Kinds of deployments, by the task of their models."""

from __future__ import annotations

from typing import Any

from raypath.components.serving.spec import EndpointSpec
from raypath.components.tasks.catalog import task_type


def deployment_of(spec: EndpointSpec) -> Any:
    """Return the Ray Serve deployment for an endpoint: of a model that predicts, or of one that generates text."""
    if task_type(spec.task, spec.label_kind).generates_text:
        from raypath.components.serving.replica.language.deployment import LanguageService

        return LanguageService
    from raypath.components.serving.replica.deployment import Service

    return Service
