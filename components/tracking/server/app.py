"""MLflow's ASGI application behind the login, configured by the environment of the process."""

from __future__ import annotations

import os
from pathlib import Path

from raypath.components.core.errors import UserError
from raypath.components.tracking.server import locations
from raypath.components.tracking.server.codes import UsedCodes
from raypath.components.tracking.server.login import LoginMiddleware

TOKEN_FILE = "RAYPATH_MLFLOW_TOKEN_FILE"
HOW = "RAYPATH_MLFLOW_LOGIN"
"""Command that prints a login link, for the page without a login."""
SHORTEST = 32


def configure(database: str, artifacts: str, token_file: Path, how: str) -> None:
    """Set the variables that this process, and workers that it starts, build the application from."""
    from mlflow.server import constants

    read_token(token_file)
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        TOKEN_FILE: str(token_file),
        HOW: how,
    }


def create_app(own_connections: bool = False) -> LoginMiddleware:
    """Build the application. own_connections: see `LoginMiddleware`."""
    from mlflow.server import constants
    from mlflow.server.fastapi_app import app

    locations.restrict(os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR])
    used = UsedCodes(os.environ[constants.BACKEND_STORE_URI_ENV_VAR])
    token = read_token(Path(os.environ[TOKEN_FILE]))
    return LoginMiddleware(app, token, used, os.environ[HOW], own_connections)


def read_token(file: Path) -> str:
    """Read the token. Raises UserError for a missing or short one: without it anyone could log in."""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"cannot read the token of MLflow in {file}: {error.strerror}", fix="create it") from None
    if len(token) < SHORTEST:
        raise UserError(f"the token in {file} has {len(token)} characters; wanted {SHORTEST} or more", fix="replace it")
    return token
