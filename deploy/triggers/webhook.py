"""Start something when an alias moves: `python -m raypath.deploy.triggers.webhook --model NAME --alias ALIAS --
COMMAND ...`.

Receives what MLflow's webhooks send for `model_version_alias.created` (which every move of an alias is), and runs the
command with RAYPATH_EVENT (an id of this delivery), RAYPATH_MODEL, RAYPATH_ALIAS and RAYPATH_VERSION set; one at a
time. On a laptop the command is `raypath run ...`, in a cluster that of k8s/components/webhook.

$RAYPATH_WEBHOOK_SECRET is what MLflow signs with. With `--announce URL` the receiver has MLflow ($MLFLOW_TRACKING_URI)
send to that address; else it is for `create_webhook`, with the same secret. A delivery counts when its HMAC is
right, it is at most five minutes old, and it has not come before:
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
from typing import Any

from raypath.components.core.errors import RaypathError, Unavailable, UserError

OLDEST = 300.0
"""Seconds that a delivery's own clock may differ from ours."""
LARGEST = 65_536
"""Bytes of a delivery."""
WAITING = 16
"""Deliveries that wait for the command before; MLflow is told to send further ones again."""


class Receiver:
    """Checks deliveries and says which of them to act on."""

    def __init__(self, secret: str, model: str, alias: str, clock: Callable[[], float] = time.time) -> None:
        if len(secret) < 16:
            raise UserError("no secret of 16 characters or more is set", fix="set $RAYPATH_WEBHOOK_SECRET")
        self.secret, self.model, self.alias, self.clock = secret.encode(), model, alias, clock
        self._seen: dict[str, float] = {}
        self._one = threading.Lock()

    def take(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        """An HTTP status, and with 202 what to act on: RAYPATH_EVENT, _MODEL, _ALIAS, _VERSION."""
        id, sent = headers.get("X-MLflow-Delivery-Id", ""), headers.get("X-MLflow-Timestamp", "")
        if not self._signed(id, sent, headers.get("X-MLflow-Signature", ""), body):
            return 401, {}
        now = self.clock()
        if not sent.isdigit() or abs(now - int(sent)) > OLDEST:
            return 401, {}
        found = _event(body)
        if found is None:
            return 400, {}
        if (found["RAYPATH_MODEL"], found["RAYPATH_ALIAS"]) != (self.model, self.alias):
            return 204, {}
        with self._one:
            self._seen = {k: at for k, at in self._seen.items() if now - at < 2 * OLDEST}
            if id in self._seen:
                return 200, {}
            self._seen[id] = now
        # Fit for a name in Kubernetes, and the same when it is sent again.
        return 202, {**found, "RAYPATH_EVENT": f"alias-{hashlib.sha256(id.encode()).hexdigest()[:16]}"}

    def forget(self, id: str) -> None:
        """Take this delivery again when it is sent again."""
        with self._one:
            self._seen.pop(id, None)

    def _signed(self, id: str, sent: str, signature: str, body: bytes) -> bool:
        made = hmac.digest(self.secret, f"{id}.{sent}.".encode() + body, "sha256")
        wanted = f"v1,{base64.b64encode(made).decode()}"
        return hmac.compare_digest(wanted.encode(), signature.encode())


def _event(body: bytes) -> dict[str, str] | None:
    """What moved; None for a delivery of another kind."""
    try:
        told = json.loads(body)
        if (told["entity"], told["action"]) != ("model_version_alias", "created"):
            return None
        data = told["data"]
        names = {"RAYPATH_MODEL": "name", "RAYPATH_ALIAS": "alias", "RAYPATH_VERSION": "version"}
        return {name: str(data[key]) for name, key in names.items()}
    except (ValueError, KeyError, TypeError):
        return None


def serve(receiver: Receiver, command: Sequence[str], host: str, port: int) -> ThreadingHTTPServer:
    """A server that runs the command for each delivery that counts, one after the other; `serve_forever` it."""
    work: queue.Queue[dict[str, str]] = queue.Queue(WAITING)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            size = self.headers.get("Content-Length", "")
            if not size.isdigit() or int(size) > LARGEST:
                self._answer(413)
                return
            status, found = receiver.take(self.headers, self.rfile.read(int(size)))  # type: ignore[arg-type]
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

    def act() -> None:
        while True:
            found = work.get()
            done = subprocess.run([*command], env={**_environment(), **found}, check=False)
            what = f"{found['RAYPATH_MODEL']} version {found['RAYPATH_VERSION']}"
            print(f"{what}: {command[0]} ended with {done.returncode}", flush=True)

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=act, daemon=True).start()
    return server


def announce(url: str, secret: str, model: str, alias: str) -> None:
    """Have MLflow send moves of aliases to this address, and to none that was announced before. Raises Unavailable."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    name, client = f"raypath-{model}-{alias}", MlflowClient()
    try:
        for hook in client.list_webhooks():
            if hook.name == name:
                client.delete_webhook(hook.webhook_id)
        client.create_webhook(name, url, ["model_version_alias.created"], secret=secret)
    except MlflowException as error:
        what = f"MLflow takes no webhook: {str(error).splitlines()[0][:300]}"
        raise Unavailable(what, fix="look at $MLFLOW_TRACKING_URI, and at what MLflow's server allows") from None


def _environment() -> dict[str, str]:
    """Ours, without the secret, which the command has no use for."""
    return {name: value for name, value in os.environ.items() if name != "RAYPATH_WEBHOOK_SECRET"}


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m raypath.deploy.triggers.webhook", description="Run a command when an alias moves."
    )
    parser.add_argument("--model", required=True, help="registered model")
    parser.add_argument("--alias", default="champion", help="whose moves count; default champion")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--announce", default="", metavar="URL", help="have MLflow send here")
    parser.add_argument("command", nargs="+", help="after --")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Receive until a signal."""
    args = parser().parse_args(argv)
    try:
        secret = os.environ.get("RAYPATH_WEBHOOK_SECRET", "")
        receiver = Receiver(secret, args.model, args.alias)
        if args.announce:
            announce(args.announce, secret, args.model, args.alias)
        with serve(receiver, args.command, args.host, args.port) as server:
            print(f"waiting at http://{args.host}:{server.server_port} for {args.model}@{args.alias}", flush=True)
            server.serve_forever()
    except RaypathError as error:
        print(f"raypath: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
