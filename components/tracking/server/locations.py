"""Limits of the tracking server: artifacts are in its own storage, and links in it are not followed.

MLflow accepts any artifact location from its clients and opens it with the server's rights. Here a location of another
kind is rejected before it is stored, and one that is stored already is not opened: all doors of MLflow's APIs lead
through the two places that are checked, its database models and its registry of artifact repositories.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

OWN = re.compile(r"mlflow-artifacts:/(?!/)(?!(.*/)?\.\.(/|$))[^%\\?#\x00-\x1f]*")
"""Artifact locations that the server resolves in its own storage."""
DELETED = "REDACTED-SOURCE-PATH"
"""Source that MLflow writes for a version that is deleted. It names nothing of the server's."""
SOURCES = re.compile(
    rf"(models|runs):/(?!/)(?!(.*/)?\.\.(/|$))[^%\\?#\x00-\x1f]+|prompt-template|{DELETED}|{OWN.pattern}"
)
"""Sources of registered versions: a model or an artifact of this server, or a prompt's text."""
_COLUMNS = {
    "mlflow.store.tracking.dbmodels.models": {
        "SqlExperiment": {"artifact_location": OWN},
        "SqlRun": {"artifact_uri": OWN},
        "SqlLoggedModel": {"artifact_location": OWN},
    },
    "mlflow.store.model_registry.dbmodels.models": {
        "SqlModelVersion": {"source": SOURCES, "storage_location": SOURCES}
    },
    "mlflow.store.workspace.dbmodels.models": {"SqlWorkspace": {"default_artifact_root": OWN}},
}


def restrict(destination: str) -> None:
    """Limit the tracking server in this process to the artifacts in its destination, a folder or a URI."""
    _check_rows()
    _check_repositories(destination)


def _check_rows() -> None:
    """Reject rows with locations outside of the server's own storage, whichever route they come from."""
    from sqlalchemy import event, inspect

    for module, classes in _COLUMNS.items():
        for name, columns in classes.items():
            model = getattr(import_module(module), name)

            def check(_mapper: Any, _connection: Any, row: Any, columns: dict[str, re.Pattern[str]] = columns) -> None:
                for column, allowed in columns.items():
                    value = getattr(row, column)
                    if value and inspect(row).attrs[column].history.has_changes() and not allowed.fullmatch(value):
                        raise _rejected(f"got {column} {value!r}; wanted one of this server, mlflow-artifacts:/...")

            event.listen(model, "before_insert", check)
            event.listen(model, "before_update", check)


def _check_repositories(destination: str) -> None:
    """Let the server open its destination and what is in it, and no other location."""
    registry: Any = import_module("mlflow.store.artifact.artifact_repository_registry")
    made_by = dict(registry.get_registered_artifact_repositories())
    root = destination.rstrip("/")

    def open_own(uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
        if not f"{uri}/".startswith(f"{root}/") or ".." in uri[len(root) :].split("/"):
            raise _rejected(f"artifact location {uri!r} is not in the storage of this server")
        if "://" not in root:
            return _local_repository(Path(root), uri)
        return made_by[root.partition(":")[0]](uri, tracking_uri=tracking_uri, registry_uri=registry_uri)

    for scheme in made_by:
        registry._artifact_repository_registry.register(scheme, open_own)


def _local_repository(root: Path, folder: str) -> Any:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    class OwnFiles(LocalArtifactRepository):  # type: ignore[misc]
        """Artifacts in a folder. The folder may be a link, as its owner made it; nothing below it may."""

        def get_local_path(self, artifact_path: str) -> str:
            self._check(artifact_path)
            return str(super().get_local_path(artifact_path))

        def list_artifacts(self, path: str | None = None) -> list[Any]:
            self._check(path)
            found = super().list_artifacts(path)
            return [each for each in found if not os.path.islink(os.path.join(self.artifact_dir, each.path))]

        def delete_artifacts(self, artifact_path: str | None = None) -> None:
            self._check(artifact_path)
            super().delete_artifacts(artifact_path)

        def _get_destination_artifact_path(self, name: str, artifact_path: str | None = None) -> tuple[str, str]:
            self._check(artifact_path)
            return super()._get_destination_artifact_path(name, artifact_path)  # type: ignore[no-any-return]

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            self._check(remote_file_path)
            super()._download_file(remote_file_path, local_path)

        def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
            self._check(artifact_path)
            super().log_artifacts(local_dir, artifact_path)

        def _check(self, path: str | None) -> None:
            """Reject paths that leave the folder, or that lead over a link."""
            parts = Path(self.artifact_dir, path or "").parts[len(root.parts) :]
            if ".." in parts or Path(path or "").is_absolute():
                raise _rejected("the path leaves the artifacts of this server")
            for count in range(1, len(parts) + 1):
                if root.joinpath(*parts[:count]).is_symlink():
                    raise _rejected("the path leads over a symbolic link")

    return OwnFiles(folder)


def _rejected(message: str) -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    made: Exception = MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
    return made
