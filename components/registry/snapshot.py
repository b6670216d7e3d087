"""Snapshot of the model registry: aliases and versions, each read at most once through one MLflow client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raypath.components.registry import client as registry


class RegistrySnapshot:
    """Read-through cache of aliases and versions. Create one for each rollout or poll with `registry_snapshot`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._aliases: dict[str, dict[str, int]] = {}
        self._versions: dict[tuple[str, int], Any] = {}

    def by_alias(self, name: str, alias: str) -> Any:
        """Return MLflow's entity of the version with an alias, None without one."""
        if name not in self._aliases:
            self._aliases[name] = registry.read_aliases(self._client, name)
        number = self._aliases[name].get(alias)
        return None if number is None else self.version(name, number)

    def find(self, name: str, version: int) -> Any:
        """Return MLflow's entity of a version, None if there is none."""
        key = name, version
        if key not in self._versions:
            self._versions[key] = registry.find_version(self._client, name, version)
        return self._versions[key]

    def version(self, name: str, version: int) -> Any:
        """Return MLflow's entity of a version. Raises DataError, which names the versions there are."""
        found = self.find(name, version)
        return registry.get_version(self._client, name, version) if found is None else found


@contextmanager
def registry_snapshot(uri: str) -> Iterator[RegistrySnapshot]:
    """Open a snapshot of the registry at `uri`. Raises Unavailable if MLflow does not respond."""
    with registry.mlflow_client(uri) as client:
        yield RegistrySnapshot(client)
