"""The MLflow registry: which version a name means, its files, and moving the alias `champion`.

Seen from the command line and from the steps; the files of a version are `cache`'s business.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, Unavailable, UserError
from raypath.components.registry.cache import fetch
from raypath.components.tracking import http
from raypath.components.tracking.tags import METRIC_PREFIX

LIMITS = {
    "HTTP_REQUEST_MAX_RETRIES": "2",
    "HTTP_REQUEST_TIMEOUT": "10",
    "HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model; `metrics` are those of its own test part."""

    name: str
    version: int
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    """Seconds since 1970."""

    @property
    def metrics(self) -> dict[str, float]:
        return {k.removeprefix(METRIC_PREFIX): float(v) for k, v in self.tags.items() if k.startswith(METRIC_PREFIX)}


@contextlib.contextmanager
def mlflow_client(uri: str) -> Iterator[Any]:
    """An MLflow client for the server at `uri`, its calls bounded in time. Raises Unavailable when it does not answer.

    MLflow's own client would try for about four minutes.
    """
    if not uri:
        raise UserError(
            "no MLflow server is set; the registry needs one",
            fix="set MLFLOW_TRACKING_URI, or ray.mlflow, kuberay.mlflow or kubeflow.tracking",
        )
    if not is_reachable(uri):
        raise Unavailable(f"MLflow does not answer at {uri}", fix="start it with `raypath up`, or check the address")
    for key, value in LIMITS.items():
        os.environ.setdefault(f"MLFLOW_{key}", value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        reason = str(error).splitlines()[0][:200]
        raise Unavailable(f"MLflow at {uri} refused ({reason})", fix="look at the MLflow server's log") from None


def is_reachable(uri: str, seconds: float = 3.0) -> bool:
    """Whether an MLflow server is healthy there; True for an address that is no server."""
    if not uri.startswith(("http://", "https://")):
        return True
    try:
        status = http.send("GET", f"{uri.rstrip('/')}/health", timeout=seconds, follow_redirects=True).status
    except ConnectionError:
        return False
    # A server that asks for a password is there.
    return status in (200, 401, 403)


def resolve(uri: str, source: str, cache: Path) -> tuple[str, int, Path]:
    """`models:/NAME@ALIAS` or `models:/NAME/3` -> name, version and a local folder that transformers opens.

    A version is fetched into `cache` once. Raises UserError for another form, DataError for an unknown name.
    """
    parts = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", source)
    if parts is None:
        raise UserError(f"got {source}; wanted models:/NAME@ALIAS or models:/NAME/VERSION", fix="see `raypath models`")
    name, alias, number = parts.groups()
    with mlflow_client(uri) as client:
        found = _by_alias(client, name, alias) if alias else get_version(client, name, int(number))
        return name, int(found.version), fetch(client, uri, found, cache)


def list_models(uri: str) -> list[RegisteredVersion]:
    """All versions of all models, newest first within a name."""
    with mlflow_client(uri) as client:
        return [entry for name in sorted(_names(client)) for entry in versions(client, name)]


def versions(client: Any, name: str) -> list[RegisteredVersion]:
    """The versions of one model, newest first; [] for an unknown name."""
    aliases: dict[int, list[str]] = {}
    for alias, number in _aliases(client, name).items():
        aliases.setdefault(number, []).append(alias)
    found = [_registered(v) for v in _all(client.search_model_versions, f"name = '{name}'")]
    found = [
        RegisteredVersion(v.name, v.version, tuple(sorted(aliases.get(v.version, ()))), v.tags, v.created)
        for v in found
    ]
    return sorted(found, key=lambda v: -v.version)


def source_of(uri: str, name: str, version: int) -> str:
    """Where a version's files are, as the registry says: `models:/m-...`. Raises DataError for an unknown version."""
    with mlflow_client(uri) as client:
        return str(get_version(client, name, version).source)


def _registered(found: Any) -> RegisteredVersion:
    return RegisteredVersion(found.name, int(found.version), (), dict(found.tags), found.creation_timestamp / 1000)


def _all(search: Any, wanted: str | None = None) -> Iterator[Any]:
    """Every page of a search."""
    token = None
    while True:
        page = search(filter_string=wanted, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _names(client: Any) -> list[str]:
    return [model.name for model in _all(client.search_registered_models)]


def _aliases(client: Any, name: str) -> dict[str, int]:
    model = _maybe(client.get_registered_model, name)
    return {alias: int(version) for alias, version in model.aliases.items()} if model else {}


def _maybe(call: Any, *args: Any) -> Any:
    """The call's answer, None when the registry has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*args)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _known(client: Any, name: str) -> None:
    if _maybe(client.get_registered_model, name) is None:
        names = _names(client)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(names)[:8]) or 'no model yet'}"
        raise DataError(f"the registry has no model {name}", fix=fix)


def get_version(client: Any, name: str, version: int) -> Any:
    """MLflow's entity of a version. Raises DataError."""
    _known(client, name)
    found = _maybe(client.get_model_version, name, str(version))
    if found is None:
        there = ", ".join(str(v.version) for v in versions(client, name)[:8]) or "none"
        raise DataError(f"model {name} has no version {version}", fix=f"its versions: {there}")
    return found


def _by_alias(client: Any, name: str, alias: str) -> Any:
    _known(client, name)
    aliases = _aliases(client, name)
    if alias not in aliases:
        have = ", ".join(sorted(aliases)) or "none"
        raise DataError(f"model {name} has no alias {alias}; its aliases: {have}", fix="see `raypath models`")
    return get_version(client, name, aliases[alias])
