"""Client for Ray's Jobs API over HTTP, with a time limit on every call and a log stream that reconnects.

Ray's own client waits without a limit, and needs Ray where only a command is submitted.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from raypath.components.core.errors import PlatformError, Unavailable, UserError
from raypath.components.tracking import http
from raypath.deploy.remote.log_stream import LogStream

TIMEOUT = 20.0
"""Seconds for a call."""
UPLOAD_TIMEOUT = 300.0
"""Seconds for which an upload may stall."""
HEARTBEAT = 10.0
"""Seconds between two pings of the websocket; a connection that does not answer one counts as lost."""
_TOKEN_FIX = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file with the cluster's token"


class JobsApiClient:
    """Client for the cluster whose dashboard is at `address`."""

    def __init__(self, address: str) -> None:
        self.address = dashboard_url(address)
        self._token, self._is_chosen = token(), bool(_variable())

    @property
    def has_token(self) -> bool:
        """True if requests have a token."""
        return bool(self._token)

    def headers(self) -> dict[str, str]:
        """Return the headers that log in.

        Raises ConnectionError where another user listens at a port of this machine, unless RAY_AUTH_TOKEN is set: a
        token from a file is that of a home or of this user.
        """
        if self._token and not self._is_chosen:
            http.check_listener(self.address)
        return http.bearer(self._token)

    def version(self) -> str:
        """Ray's version on the cluster. Raises UserError for another service, or for a token that it rejects."""
        found = self._json("GET", "/api/version")
        if not isinstance(found, dict) or "ray_version" not in found:
            raise self._not_a_dashboard()
        self._json("GET", "/api/jobs/no-such-job", allow_missing=True)
        return str(found["ray_version"])

    def is_open(self) -> bool:
        """True for a cluster that accepts jobs without a token."""
        try:
            return http.send("GET", f"{self.address}/api/jobs/", timeout=TIMEOUT).ok
        except ConnectionError:
            return False

    def nodes(self) -> list[dict[str, float]]:
        """Resources of each living node, such as {"CPU": 2.0}; empty where the dashboard does not list nodes."""
        found = self._json("GET", "/api/v0/nodes?detail=1&limit=10000", allow_missing=True) or {}
        listed = found.get("data", {}).get("result", {}).get("result", [])
        alive = [node for node in listed if node.get("state") == "ALIVE"]
        return [node["resources_total"] for node in alive if "resources_total" in node]

    def upload(self, name: str, data: bytes) -> str:
        """Upload a package unless the cluster has it; returns its URI inside the cluster."""
        path = f"/api/packages/gcs/{name}"
        if self._call("GET", path, allow_missing=True) is None:
            self._call("PUT", path, data, timeout=UPLOAD_TIMEOUT)
        return f"gcs://{name}"

    def submit(self, job: str, command: str, environment: dict[str, Any], labels: dict[str, str]) -> None:
        """Submit a job."""
        body = {"submission_id": job, "entrypoint": command, "runtime_env": environment, "metadata": labels}
        self._json("POST", "/api/jobs/", body)

    def status(self, job: str) -> tuple[str, str] | None:
        """(PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; Ray's message), None for an unknown job."""
        found = self._json("GET", f"/api/jobs/{quote(job)}", allow_missing=True)
        return None if found is None else (str(found["status"]), str(found.get("message") or ""))

    def stop(self, job: str) -> None:
        """Request a stop; returns before the job has stopped."""
        self._json("POST", f"/api/jobs/{quote(job)}/stop", {})

    def log(self, job: str) -> str:
        """The whole log of a job."""
        found = self._json("GET", f"/api/jobs/{quote(job)}/logs", allow_missing=True)
        return str((found or {}).get("logs", ""))

    def log_stream(self, job: str, reconnect_timeout: float) -> LogStream:
        """Stream a job's log; a connection may be lost for that many seconds."""
        return _JobLogStream(self, job, reconnect_timeout)

    def _json(self, method: str, path: str, body: Any = None, allow_missing: bool = False) -> Any:
        found = self._call(method, path, None if body is None else json.dumps(body).encode(), allow_missing)
        return found and ({} if (content := found.json()) is None else content)

    def _call(
        self, method: str, path: str, body: bytes | None = None, allow_missing: bool = False, timeout: float = TIMEOUT
    ) -> http.Response | None:
        """Send a request; None for a 404 that is allowed. Raises UserError, PlatformError, Unavailable."""
        try:
            found = http.send(method, f"{self.address}{path}", body=body, headers=self.headers(), timeout=timeout)
        except ConnectionError as error:
            what = f"no Ray cluster answers at {self.address} ({error})"
            raise Unavailable(what, fix="check --address, and that the head runs with its dashboard") from None
        if found.status == 404 and allow_missing:
            return None
        if not found.ok:
            raise self._error(found)
        return found

    def _error(self, found: http.Response) -> UserError | PlatformError:
        if found.status == 401:
            return UserError(f"the cluster at {self.address} requires a token", fix=_TOKEN_FIX)
        if found.status == 403:
            return UserError(f"the cluster at {self.address} rejects the token", fix=_TOKEN_FIX)
        if found.status == 404:
            return self._not_a_dashboard()
        lines = found.body.decode(errors="replace").strip().splitlines() or ["no reason given"]
        return PlatformError(f"{self.address} answered {found.status}: {lines[-1][:300]}", fix="see the head's logs")

    def _not_a_dashboard(self) -> UserError:
        return UserError(f"{self.address} is not a Ray dashboard", fix="give the head's URL, such as http://HEAD:8265")


class _JobLogStream(LogStream):
    """Log of a job through the dashboard's websocket."""

    def __init__(self, jobs: JobsApiClient, job: str, reconnect_timeout: float) -> None:
        super().__init__(job, reconnect_timeout)
        self._jobs = jobs
        self._received, self._partial = 0, ""

    def poll(self) -> tuple[str, str] | None:
        return self._jobs.status(self.job)

    def drain(self) -> None:
        self._emit(self._jobs.log(self.job)[self._received :])

    def read(self) -> None:
        before = self._received
        try:
            asyncio.run(self._read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.connection_lost("log", str(error) or type(error).__name__)
        self.back_off(self._received > before)

    async def _read(self) -> None:
        """Read from the current position; each connection begins at the first character of the log."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=HEARTBEAT)
        url = f"{self._jobs.address}/api/jobs/{self.job}/logs/tail"
        position = 0
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.ws_connect(url, headers=self._jobs.headers(), heartbeat=HEARTBEAT, max_msg_size=0) as socket,
        ):
            self.connected("log")
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                position += len(message.data)
                if position > self._received:
                    self._emit(message.data[self._received - position :])
                self.connected("log")

    def _emit(self, text: str) -> None:
        self._received += len(text)
        *complete, self._partial = (self._partial + text).split("\n")
        for line in complete:
            self.lines.put(line)


def dashboard_url(address: str) -> str:
    """The dashboard's URL with its scheme. Raises UserError for a missing one, or for one that is not HTTP."""
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS", "")
    if not address:
        raise UserError("--on ray needs the cluster's address", fix="give --address http://HEAD:8265")
    address = address if "://" in address else f"http://{address}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--address {address}: not HTTP", fix="give the dashboard's address, http://HEAD:8265")
    return address.rstrip("/")


def token() -> str:
    """The cluster's token: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token; "" for none."""
    if found := _variable():
        return found
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    try:
        return Path(path or "~/.ray/auth_token").expanduser().read_text("utf-8").strip()
    except OSError as error:
        if path:
            raise UserError(f"RAY_AUTH_TOKEN_PATH {path}: {error.strerror}", fix=_TOKEN_FIX) from None
        return ""


def _variable() -> str:
    return os.environ.get("RAY_AUTH_TOKEN", "").strip()
