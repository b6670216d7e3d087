"""Webhook receiver: run a command when an alias of a registered model moves.

    python -m raypath.deploy.triggers.webhook --model NAME --alias ALIAS -- COMMAND ...

MLflow sends `model_version_alias.created` for every move of an alias. The receiver then runs the command, one at a
time, with RAYPATH_EVENT (an id of the delivery), RAYPATH_MODEL, RAYPATH_ALIAS and RAYPATH_VERSION in its environment.
On a laptop the command is `raypath run ...`, on Kubernetes that of k8s/components/webhook.

MLflow signs deliveries with $RAYPATH_WEBHOOK_SECRET. With `--announce URL` the receiver registers that URL as a webhook
of MLflow ($MLFLOW_TRACKING_URI); otherwise call `create_webhook` with the same secret. A delivery is accepted with a
valid HMAC, at most five minutes old, and only once:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from raypath.components.core.errors import RaypathError, Unavailable, UserError
from raypath.components.core.files import write_atomically

MAX_AGE = 300.0
"""Seconds by which a delivery's timestamp may differ from this machine's clock."""
MAX_BYTES = 65_536
"""Largest accepted delivery."""
MAX_QUEUED = 16
"""Deliveries that wait for the running command; further ones get 503, so that MLflow sends them again."""


class Receiver:
    """Verify deliveries and extract the event to act on; each is acted on once.

    state: file that keeps the deliveries of the last minutes over a restart. Without it, deliveries from before the
    start are rejected, since an earlier process may have acted on them.
    """

    def __init__(
        self, secret: str, model: str, alias: str, clock: Callable[[], float] = time.time, state: Path | None = None
    ) -> None:
        if len(secret) < 16:
            raise UserError("no secret of 16 characters or more is set", fix="set $RAYPATH_WEBHOOK_SECRET")
        self.secret, self.model, self.alias, self.clock = secret.encode(), model, alias, clock
        self._state = state
        self._seen: dict[str, float] = _load(state)
        self._oldest = 0 if state and state.exists() else int(clock())
        self._one = threading.Lock()

    def receive(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        """An HTTP status, and with 202 the variables for the command: RAYPATH_EVENT, _MODEL, _ALIAS, _VERSION."""
        id, sent = headers.get("X-MLflow-Delivery-Id", ""), headers.get("X-MLflow-Timestamp", "")
        if not self._signed(id, sent, headers.get("X-MLflow-Signature", ""), body):
            return 401, {}
        now = self.clock()
        if not _is_number(sent) or abs(now - int(sent)) > MAX_AGE or int(sent) < self._oldest:
            return 401, {}
        found = _event(body)
        if found is None:
            return 400, {}
        if (found["RAYPATH_MODEL"], found["RAYPATH_ALIAS"]) != (self.model, self.alias):
            return 204, {}
        with self._one:
            self._seen = {k: at for k, at in self._seen.items() if now - at < 2 * MAX_AGE}
            if id in self._seen:
                return 200, {}
            self._seen[id] = now
            self._save()
        # A valid Kubernetes name, and the same for a repeated delivery.
        return 202, {**found, "RAYPATH_EVENT": f"alias-{hashlib.sha256(id.encode()).hexdigest()[:16]}"}

    def forget(self, id: str) -> None:
        """Accept this delivery again when it is repeated."""
        with self._one:
            self._seen.pop(id, None)
            self._save()

    def _save(self) -> None:
        if self._state:
            write_atomically(self._state, json.dumps(self._seen))

    def _signed(self, id: str, sent: str, signature: str, body: bytes) -> bool:
        made = hmac.digest(self.secret, f"{id}.{sent}.".encode() + body, "sha256")
        wanted = f"v1,{base64.b64encode(made).decode()}"
        return hmac.compare_digest(wanted.encode(), signature.encode())


def _is_number(text: str) -> bool:
    """True for ASCII digits; `int` rejects others that `isdigit` takes, such as a superscript."""
    return text.isascii() and text.isdigit()


def _load(state: Path | None) -> dict[str, float]:
    """Deliveries of an earlier process. Raises UserError for a file that is something else."""
    if state is None or not state.exists():
        return {}
    try:
        return {str(id): float(at) for id, at in json.loads(state.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{state} has no deliveries", fix="remove it, or name another file") from None


def _event(body: bytes) -> dict[str, str] | None:
    """The variables of a moved alias; None for another kind of event."""
    try:
        event = json.loads(body)
        if (event["entity"], event["action"]) != ("model_version_alias", "created"):
            return None
        data = event["data"]
        names = {"RAYPATH_MODEL": "name", "RAYPATH_ALIAS": "alias", "RAYPATH_VERSION": "version"}
        return {name: str(data[key]) for name, key in names.items()}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def serve(receiver: Receiver, command: Sequence[str], host: str, port: int) -> ThreadingHTTPServer:
    """Create a server that runs the command for each accepted delivery, one at a time; call `serve_forever` on it."""
    work: queue.Queue[dict[str, str]] = queue.Queue(MAX_QUEUED)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            size = self.headers.get("Content-Length", "")
            if not _is_number(size) or int(size) > MAX_BYTES:
                self._answer(413)
                return
            status, found = receiver.receive(self.headers, self.rfile.read(int(size)))  # type: ignore[arg-type]
            if found:
                try:
                    work.put_nowait(found)
                except queue.Full:
                    receiver.forget(self.headers["X-MLflow-Delivery-Id"])
                    status = 503
            self._answer(status)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    def run_commands() -> None:
        while True:
            found = work.get()
            done = subprocess.run([*command], env={**_environment(), **found}, check=False)
            what = f"{found['RAYPATH_MODEL']} version {found['RAYPATH_VERSION']}"
            print(f"{what}: {command[0]} ended with {done.returncode}", flush=True)

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=run_commands, daemon=True).start()
    return server


def announce(url: str, secret: str, model: str, alias: str) -> None:
    """Register this URL as MLflow's webhook for moved aliases, replacing an earlier one. Raises Unavailable."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    name, client = f"raypath-{model}-{alias}", MlflowClient()
    try:
        for hook in client.list_webhooks():
            if hook.name == name:
                client.delete_webhook(hook.webhook_id)
        client.create_webhook(name, url, ["model_version_alias.created"], secret=secret)
    except MlflowException as error:
        what = f"MLflow rejects the webhook: {str(error).splitlines()[0][:300]}"
        raise Unavailable(what, fix="check $MLFLOW_TRACKING_URI, and the webhook settings of MLflow's server") from None


def _environment() -> dict[str, str]:
    """This process's environment without the secret, which the command does not need."""
    return {name: value for name, value in os.environ.items() if name != "RAYPATH_WEBHOOK_SECRET"}


def parser() -> argparse.ArgumentParser:
    """The command line parser."""
    parser = argparse.ArgumentParser(
        prog="python -m raypath.deploy.triggers.webhook", description="Run a command when an alias moves."
    )
    parser.add_argument("--model", required=True, help="registered model")
    parser.add_argument("--alias", default="champion", help="alias to watch; default champion")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the ids of deliveries here over a restart")
    parser.add_argument("--announce", default="", metavar="URL", help="register this URL as a webhook of MLflow")
    parser.add_argument("command", nargs="+", help="command to run, after --")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Receive deliveries until a signal."""
    args = parser().parse_args(argv)
    try:
        secret = os.environ.get("RAYPATH_WEBHOOK_SECRET", "")
        receiver = Receiver(secret, args.model, args.alias, state=args.state)
        if args.announce:
            announce(args.announce, secret, args.model, args.alias)
        with serve(receiver, args.command, args.host, args.port) as server:
            print(f"listening at http://{args.host}:{server.server_port} for {args.model}@{args.alias}", flush=True)
            server.serve_forever()
    except RaypathError as error:
        print(f"raypath: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
