"""Ray's Jobs API over HTTP, with a time limit on every call and errors that say what to do; logs as they grow.

Not Ray's own client: it waits without limit, and it needs Ray where only a command is given.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from raypath.components.core.errors import PlatformError, Unavailable, UserError
from raypath.components.core.uris import LOOPBACK
from raypath.deploy.remote.log_stream import LogStream

SECONDS = 20.0
"""For a call; an upload takes what it takes as long as bytes move."""
BEAT = 10.0
"""Seconds between two pings; a connection that does not answer one counts as lost."""
_TOKEN_FIX = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file with the cluster's token"


class JobsApiClient:
    """The jobs of the cluster whose dashboard is at `address`."""

    def __init__(self, address: str) -> None:
        self.address = dashboard(address)
        self.headers = {"Authorization": f"Bearer {found}"} if (found := token()) else {}

    def version(self) -> str:
        """The cluster's Ray. Raises UserError when something else answers there, or wants another token."""
        found = self._json("GET", "/api/version")
        if not isinstance(found, dict) or "ray_version" not in found:
            raise UserError(f"{self.address} is no Ray dashboard", fix="give the head's, such as http://HEAD:8265")
        self._json("GET", "/api/jobs/no-such-job", missing=True)
        return str(found["ray_version"])

    def is_open(self) -> bool:
        """Whether it takes jobs from whoever reaches it."""
        try:
            with self._open(urllib.request.Request(f"{self.address}/api/jobs/"), SECONDS):
                return True
        except (OSError, http.client.HTTPException):
            return False

    def nodes(self) -> list[dict[str, float]]:
        """What each living node has, such as {"CPU": 2.0}; none where the dashboard does not tell."""
        found = self._json("GET", "/api/v0/nodes?detail=1&limit=10000", missing=True) or {}
        listed = found.get("data", {}).get("result", {}).get("result", [])
        alive = [node for node in listed if node.get("state") == "ALIVE"]
        return [node["resources_total"] for node in alive if "resources_total" in node]

    def upload(self, name: str, data: bytes) -> str:
        """Send a package, unless it is there; returns its address inside the cluster."""
        path = f"/api/packages/gcs/{name}"
        if self._call("GET", path, missing=True) is None:
            self._call("PUT", path, data, seconds=300.0)
        return f"gcs://{name}"

    def submit(self, job: str, command: str, environment: dict[str, Any], labels: dict[str, str]) -> None:
        """Begin a job."""
        body = {"submission_id": job, "entrypoint": command, "runtime_env": environment, "metadata": labels}
        self._json("POST", "/api/jobs/", body)

    def status(self, job: str) -> tuple[str, str] | None:
        """(PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; what Ray says of it), None for an unknown job."""
        found = self._json("GET", f"/api/jobs/{quote(job)}", missing=True)
        return None if found is None else (str(found["status"]), str(found.get("message") or ""))

    def stop(self, job: str) -> None:
        """Ask a job to stop; returns before it has."""
        self._json("POST", f"/api/jobs/{quote(job)}/stop", {})

    def log(self, job: str) -> str:
        """All that a job has written."""
        found = self._json("GET", f"/api/jobs/{quote(job)}/logs", missing=True)
        return str((found or {}).get("logs", ""))

    def log_stream(self, job: str, reconnect_timeout: float) -> LogStream:
        """The lines of its log, which may be lost for so many seconds."""
        return _JobLogStream(self, job, reconnect_timeout)

    def _json(self, method: str, path: str, body: Any = None, missing: bool = False) -> Any:
        said = self._call(method, path, None if body is None else json.dumps(body).encode(), missing)
        try:
            return None if said is None else json.loads(said)
        except ValueError:
            return {}

    def _call(
        self, method: str, path: str, data: bytes | None = None, missing: bool = False, seconds: float = SECONDS
    ) -> bytes | None:
        """The body of the answer; None for 404 where `missing` is allowed. Raises UserError, Unavailable."""
        headers = {**self.headers, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}{path}", data, headers, method=method)
        try:
            with self._open(request, seconds) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing:
                return None
            raise self._refused(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            what = f"no Ray cluster answers at {self.address} ({reason})"
            raise Unavailable(what, fix="check --address, and that the head runs with its dashboard") from None

    def _open(self, request: urllib.request.Request, seconds: float) -> Any:
        here = urlsplit(self.address).hostname in LOOPBACK
        handlers: list[urllib.request.BaseHandler] = [_Straight()]
        handlers += [urllib.request.ProxyHandler({})] if here else []
        return urllib.request.build_opener(*handlers).open(request, timeout=seconds)

    def _refused(self, error: urllib.error.HTTPError) -> UserError | PlatformError:
        if error.code == 401:
            return UserError(f"the cluster at {self.address} asks for a token", fix=_TOKEN_FIX)
        if error.code == 403:
            return UserError(f"the cluster at {self.address} refuses our token", fix=_TOKEN_FIX)
        if error.code == 404:
            return UserError(f"{self.address} is no Ray dashboard", fix="give the head's, such as http://HEAD:8265")
        text = error.read().decode(errors="replace").strip().splitlines() or [error.reason]
        return PlatformError(f"{self.address} answered {error.code}: {text[-1][:300]}", fix="see the head's logs")


class _JobLogStream(LogStream):
    """A job's log through the dashboard's websocket."""

    def __init__(self, jobs: JobsApiClient, job: str, reconnect_timeout: float) -> None:
        super().__init__(job, reconnect_timeout)
        self._jobs = jobs
        self._seen, self._rest = 0, ""

    def poll(self) -> tuple[str, str] | None:
        return self._jobs.status(self.job)

    def finish(self) -> None:
        self._take(self._jobs.log(self.job)[self._seen :])

    def read(self) -> None:
        before = self._seen
        try:
            asyncio.run(self._read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.lost("log", str(error) or type(error).__name__)
        self.pause(self._seen > before)

    async def _read(self) -> None:
        """Read the log from where we are; every connection begins at its first character."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=BEAT)
        url = f"{self._jobs.address}/api/jobs/{self.job}/logs/tail"
        at = 0
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.ws_connect(url, headers=self._jobs.headers, heartbeat=BEAT, max_msg_size=0) as socket,
        ):
            self.alive("log")
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                at += len(message.data)
                if at > self._seen:
                    self._take(message.data[self._seen - at :])
                self.alive("log")

    def _take(self, text: str) -> None:
        self._seen += len(text)
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self.lines.put(line)


def dashboard(address: str) -> str:
    """The address with its scheme. Raises UserError for none, or for one that is not HTTP."""
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
    if found := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return found
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    try:
        return Path(path or "~/.ray/auth_token").expanduser().read_text("utf-8").strip()
    except OSError as error:
        if path:
            raise UserError(f"RAY_AUTH_TOKEN_PATH {path}: {error.strerror}", fix=_TOKEN_FIX) from None
        return ""


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which would take the token to another machine."""

    def redirect_request(self, *_: Any) -> None:
        return None
