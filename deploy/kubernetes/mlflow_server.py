"""MLflow's tracking server in a pod, and the command that prints a login link.

    python -m raypath.deploy.kubernetes.mlflow_server serve --workers 2
    python -m raypath.deploy.kubernetes.mlflow_server link http://localhost:5000

In the environment: MLFLOW_BACKEND_STORE_URI, MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_SERVER_ALLOWED_HOSTS, and
RAYPATH_MLFLOW_TOKEN_FILE.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from raypath.components.core.errors import RaypathError
from raypath.components.tracking.server import app, codes
from raypath.deploy.execution.process import configure_process

_PROGRAM = "python -m raypath.deploy.kubernetes.mlflow_server"
LOGIN = f"kubectl -n raypath exec deploy/mlflow -- {_PROGRAM} link http://localhost:5000"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, or print a link."""
    configure_process()
    args = _parser().parse_args(argv)
    token_file = Path(os.environ.get(app.TOKEN_FILE, "/etc/raypath/mlflow/token"))
    try:
        if args.command == "link":
            print(codes.link(args.address.rstrip("/"), app.read_token(token_file)))
        else:
            _serve(token_file, args)
    except RaypathError as error:
        print(f"raypath: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="MLflow with a login")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the server until SIGTERM")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=5000)
    serve.add_argument("--workers", type=int, default=2)
    commands.add_parser("link", help="print a link that logs a browser in, once").add_argument("address")
    return parser


def _serve(token_file: Path, args: argparse.Namespace) -> None:
    database, artifacts = os.environ["MLFLOW_BACKEND_STORE_URI"], os.environ["MLFLOW_ARTIFACTS_DESTINATION"]
    app.configure(database, artifacts, token_file, LOGIN)
    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores

    # The database is made or migrated once, before the workers start.
    initialize_backend_stores(database, database, "mlflow-artifacts:/")
    uvicorn.run(
        "raypath.components.tracking.server.app:create_app",
        factory=True,
        host=args.host,
        port=args.port,
        workers=args.workers,
        log_level="warning",
        proxy_headers=False,
        timeout_worker_healthcheck=60,  # a worker imports MLflow for seconds, longer on a busy node
    )


if __name__ == "__main__":
    sys.exit(main())
