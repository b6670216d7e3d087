"""Workflows, settings, API keys and usage as typed results."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raypath.components.core.graph import Graph
from raypath.components.core.params import describe_fields
from raypath.deploy.api.results import Result
from raypath.deploy.execution.workflow_loader import built_in_workflows, load_workflow
from raypath.deploy.launchers import trace

if TYPE_CHECKING:
    from raypath.components.serving.metering.holder import Key as StoredKey


class WorkflowInfo(Result):
    """A workflow that `raypath run` finds by its name."""

    name: str
    """As `raypath run` takes it."""
    description: str


class GraphStep(Result):
    """A step of a workflow's graph."""

    name: str
    component: str
    """module:function."""
    inputs: list[str]
    """STEP or STEP.SPLIT of the outputs that it takes."""
    output: str
    """Class of its artifact."""


class Setting(Result):
    """A setting of a workflow."""

    key: str
    value: Any
    type: str
    description: str


class WorkflowDetail(Result):
    """Graph and settings of a workflow."""

    name: str
    description: str
    steps: list[GraphStep]
    settings: list[Setting]


class Check(Result):
    """A workflow whose graph and settings fit together."""

    workflow: str
    steps: list[str]
    settings: dict[str, Any]


class Key(Result):
    """An API key without its secret; limits of 0 are none, `models` is None for all."""

    id: str
    name: str
    status: Literal["active", "expired", "revoked"]
    scopes: list[str]
    role: Literal["viewer", "operator", "admin"] | None
    """null: the key may do what its scopes name."""
    tenant: str | None
    models: list[str] | None
    created: datetime
    expires: datetime | None
    requests_per_minute: int
    tokens_per_minute: int
    quota_requests: int
    quota_tokens: int
    price_per_request: float
    price_per_1k_tokens: float
    price_per_1k_generated: float | None
    """Price of 1,000 generated tokens; null for `price_per_1k_tokens`."""
    price_per_1k_cached: float | None
    """Price of 1,000 tokens of prompts that come from the prefix cache; null for `price_per_1k_tokens`."""


class CreatedKey(Key):
    """A new API key with its text, which cannot be shown again."""

    key: str


class UsageRow(Result):
    """Usage by key, model, day or tenant."""

    group: str
    """Id of the key, name of the model or the tenant, or the day; "" without a valid key, or a tenant."""
    name: str
    """Name of the key, "" for other groups."""
    requests: int
    rejected: int
    errors: int
    tokens: int
    generated_tokens: int
    """Of `tokens`, those that language models generated."""
    cached_tokens: int
    """Of `tokens`, those of prompts that came from the prefix cache."""
    compute_seconds: float
    price: float


def workflows() -> list[WorkflowInfo]:
    """Return the workflows that have a name; none is imported."""
    return [WorkflowInfo(name=name, description=text) for name, text in built_in_workflows().items()]


def workflow_detail(workflow: str, changes: Mapping[str, Any]) -> WorkflowDetail:
    """Return graph and settings with these changes. Raises GraphError, ParamsError."""
    graph, description = _traced(workflow, changes, final=False)
    values = graph.params.flat()
    return WorkflowDetail(
        name=graph.workflow,
        description=description,
        steps=[
            GraphStep(
                name=node.name,
                component=node.component.path,
                inputs=[str(ref) for ref in node.inputs],
                output=node.component.output.__name__,
            )
            for node in graph.nodes
        ],
        settings=[
            Setting(key=key, value=values.get(key), type=kind, description=text)
            for key, kind, text in describe_fields(type(graph.params))
        ],
    )


def check(workflow: str, changes: Mapping[str, Any]) -> Check:
    """Trace a workflow with these changes. Raises GraphError, ParamsError."""
    graph, _ = _traced(workflow, changes)
    return Check(workflow=graph.workflow, steps=[node.name for node in graph.nodes], settings=graph.params.flat())


def _traced(workflow: str, changes: Mapping[str, Any], final: bool = True) -> tuple[Graph, str]:
    flow = load_workflow(workflow)
    return trace(flow, changes, final), " ".join((flow.__doc__ or "").split())


def keys(home: Path) -> list[Key]:
    """Return all API keys of a project, also those that are revoked or have expired."""
    from raypath.components.serving.metering.api_keys import KeyStore

    return [key_of(key) for key in KeyStore(home / "access").list()]


def key_of(key: StoredKey) -> Key:
    """Convert a stored key; its digest stays behind."""
    stored = key.model_dump(include=set(Key.model_fields) - {"status", "scopes", "models"})
    status = key.status(datetime.now(UTC).timestamp())
    return Key(
        **stored, status=status, scopes=list(key.scopes), models=None if key.models is None else list(key.models)
    )


def usage(home: Path, since: datetime, by: Any, tenant: str | None = None) -> list[UsageRow]:
    """Return the usage since a moment, grouped by key, model, day or tenant. tenant: only its usage."""
    from raypath.components.serving.metering.usage import read_usage

    return [
        UsageRow(
            group=row.what,
            name=row.name if by == "key" else "",
            requests=row.sums.requests,
            rejected=row.sums.rejected,
            errors=row.sums.errors,
            tokens=row.sums.tokens,
            generated_tokens=row.sums.generated_tokens,
            cached_tokens=row.sums.cached_tokens,
            compute_seconds=round(row.sums.compute_seconds, 6),
            price=round(row.sums.price, 9),
        )
        for row in read_usage(home / "access" / "usage", since, by=by, tenant=tenant)
    ]
