"""Client of the MLflow model registry: list, look up and resolve registered versions."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, Unavailable, UserError
from raypath.components.models.process import without_collections
from raypath.components.registry.cache import fetch
from raypath.components.registry.signing.check import check_version
from raypath.components.registry.signing.keys import trusted_keys
from raypath.components.registry.tags import CHAMPION, unpack
from raypath.components.tracking import http, login
from raypath.components.tracking.limits import limit_requests
from raypath.components.tracking.tags import METRIC_PREFIX


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model; `metrics` were measured on its own test split."""

    name: str
    version: int
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    """Unix time."""

    @property
    def facts(self) -> dict[str, str]:
        """Tags, with those that one tag of JSON contains; what is signed are `tags`."""
        return unpack(self.tags)

    @property
    def metrics(self) -> dict[str, float]:
        return {k.removeprefix(METRIC_PREFIX): float(v) for k, v in self.facts.items() if k.startswith(METRIC_PREFIX)}


@contextlib.contextmanager
def mlflow_client(uri: str) -> Iterator[Any]:
    """Open an MLflow client with short timeouts: MLflow's defaults retry for about four minutes.

    Raises Unavailable if the server does not respond.
    """
    if not uri:
        raise UserError(
            "no MLflow server is set; the registry needs one",
            fix="set MLFLOW_TRACKING_URI, or ray.mlflow, kuberay.mlflow or kubeflow.tracking",
        )
    if not is_reachable(uri):
        raise Unavailable(f"MLflow does not respond at {uri}", fix="start it with `raypath up`, or check the URI")
    limit_requests()
    login.install()
    with without_collections():
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        reason = str(error).splitlines()[0][:200]
        if "error code 401" in reason:
            raise UserError(f"MLflow at {uri} rejects the login, or its absence", fix=login.FIX) from None
        raise Unavailable(
            f"MLflow at {uri} rejected the request ({reason})", fix="see the MLflow server's log"
        ) from None


def is_reachable(uri: str, seconds: float = 3.0) -> bool:
    """Return True if the MLflow server is healthy, or if the URI is not an HTTP server."""
    if not uri.startswith(("http://", "https://")):
        return True
    if login.is_foreign(uri):
        return False
    try:
        status = http.send("GET", f"{uri.rstrip('/')}/health", timeout=seconds, follow_redirects=True).status
    except ConnectionError:
        return False
    # 401 and 403: the server runs and requires authentication.
    return status in (200, 401, 403)


def resolve(
    uri: str, source: str, cache: Path, signing: Path | None = None, promoted: bool | None = None
) -> tuple[str, int, Path]:
    """Resolve `models:/NAME@ALIAS` or `models:/NAME/3` to name, version and a local folder for `from_pretrained`.

    A version is fetched into `cache` once, and its signature is checked before anything of it is read.

    Args:
        signing: Folder with trusted public keys, in addition to those of the environment (`trusted_keys`).
        promoted: Require a signed promotion; None requires it for the alias champion.

    Raises UserError for another form, DataError for an unknown name or a version that is not signed or was altered.
    """
    parts = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", source)
    if parts is None:
        raise UserError(f"got {source}; wanted models:/NAME@ALIAS or models:/NAME/VERSION", fix="see `raypath models`")
    name, alias, number = parts.groups()
    with mlflow_client(uri) as client:
        found = _version_by_alias(client, name, alias) if alias else get_version(client, name, int(number))
        version, keys = int(found.version), trusted_keys(signing)
        champion = alias == CHAMPION if promoted is None else promoted
        manifest = check_version(name, version, found.tags, keys, champion)
        return name, version, fetch(client, uri, found, cache, manifest, keys)


def list_models(uri: str) -> list[RegisteredVersion]:
    """List all versions of all models, the newest first within a name."""
    with mlflow_client(uri) as client:
        return list_registered(client)


def list_registered(client: Any, name: str = "") -> list[RegisteredVersion]:
    """List all versions of a model, or of all models, the newest first within a name."""
    names = [name] if name else sorted(_names(client))
    return [entry for each in names for entry in versions(client, each)]


def versions(client: Any, name: str) -> list[RegisteredVersion]:
    """List the versions of a model, the newest first; [] for an unknown name."""
    aliases: dict[int, list[str]] = {}
    for alias, number in read_aliases(client, name).items():
        aliases.setdefault(number, []).append(alias)
    found = [registered(v) for v in _all(client.search_model_versions, f"name = '{name}'")]
    found = [
        RegisteredVersion(v.name, v.version, tuple(sorted(aliases.get(v.version, ()))), v.tags, v.created)
        for v in found
    ]
    return sorted(found, key=lambda v: -v.version)


def registered(found: Any) -> RegisteredVersion:
    """Convert MLflow's entity of a version."""
    return RegisteredVersion(found.name, int(found.version), (), dict(found.tags), found.creation_timestamp / 1000)


def _all(search: Any, wanted: str | None = None) -> Iterator[Any]:
    """Iterate over all pages of a search."""
    token = None
    while True:
        page = search(filter_string=wanted, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _names(client: Any) -> list[str]:
    return [model.name for model in _all(client.search_registered_models)]


def read_aliases(client: Any, name: str) -> dict[str, int]:
    """Return alias -> version of a model; {} for an unknown name."""
    model = _maybe(client.get_registered_model, name)
    return {alias: int(version) for alias, version in model.aliases.items()} if model else {}


def _maybe(call: Any, *args: Any) -> Any:
    """Call the registry; return None if the resource does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*args)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def check_name(client: Any, name: str) -> None:
    """Raise DataError for an unknown model, with the nearest name."""
    if _maybe(client.get_registered_model, name) is None:
        names = _names(client)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(names)[:8]) or 'no model yet'}"
        raise DataError(f"the registry has no model {name}", fix=fix)


def find_version(client: Any, name: str, version: int) -> Any:
    """Return MLflow's entity of a version, None if there is none."""
    return _maybe(client.get_model_version, name, str(version))


def get_version(client: Any, name: str, version: int) -> Any:
    """Return MLflow's entity of a version. Raises DataError for an unknown name or version."""
    check_name(client, name)
    found = find_version(client, name, version)
    if found is None:
        there = ", ".join(str(v.version) for v in versions(client, name)[:8]) or "none"
        raise DataError(f"model {name} has no version {version}", fix=f"its versions: {there}")
    return found


def _version_by_alias(client: Any, name: str, alias: str) -> Any:
    check_name(client, name)
    aliases = read_aliases(client, name)
    if alias not in aliases:
        have = ", ".join(sorted(aliases)) or "none"
        raise DataError(f"model {name} has no alias {alias}; its aliases: {have}", fix="see `raypath models`")
    return get_version(client, name, aliases[alias])
