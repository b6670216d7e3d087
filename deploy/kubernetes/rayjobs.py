"""Client for the RayJobs of a namespace over kubectl: status, driver log, stop."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from raypath.components.core.errors import PlatformError, Unavailable
from raypath.deploy.kubernetes import kubectl
from raypath.deploy.kubernetes.capacity import pod_problems
from raypath.deploy.kubernetes.kubectl import last_line
from raypath.deploy.remote.events import EVENT_PREFIX, End
from raypath.deploy.remote.log_stream import TERMINAL, LogStream, Notice

SCHEME = "kuberay://"
LOOK = 5.0
"""Seconds between two looks at a job while its log is read."""
REST = 20.0
"""Seconds in which the log of a job that has ended is read to its end."""


@dataclass(frozen=True)
class RayJobState:
    """What KubeRay tells of a RayJob."""

    deployment: str
    job: str
    message: str
    attempt: str
    """Ray's id of the job; a new one where KubeRay begins anew."""
    seconds: float
    """In which it has to end."""
    cluster: str
    """Its Ray cluster."""

    @classmethod
    def of(cls, found: dict[str, Any]) -> RayJobState:
        """As it stands in the object. Ray's message goes on with the log's last lines, which are no part of it."""
        status = found.get("status") or {}
        message = (str(status.get("message") or "").strip().splitlines() or [""])[0][:300]
        deployment, job, attempt = (
            str(status.get(f"job{name}") or "") for name in ("DeploymentStatus", "Status", "Id")
        )
        seconds = float(found["spec"].get("activeDeadlineSeconds") or "inf")
        return cls(deployment, job, message, attempt, seconds, str(status.get("rayClusterName") or ""))

    def __str__(self) -> str:
        return " ".join(part for part in (self.deployment, self.job, self.message) if part)

    @property
    def status(self) -> str:
        """In Ray's words. An attempt that failed is no end: KubeRay may make another one."""
        if self.deployment == "Complete":
            return self.job if self.job in TERMINAL else "SUCCEEDED"
        if self.deployment in ("Failed", "ValidationFailed"):
            return "FAILED"
        return "RUNNING" if self.deployment == "Running" else "PENDING"


class RayJobClient:
    """Those at an address, kuberay://CONTEXT/NAMESPACE; without a context those that kubectl reaches by itself."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.context, _, self.namespace = address.removeprefix(SCHEME).rpartition("/")
        self.where = ("-n", self.namespace, *(("--context", self.context) if self.context else ()))
        self.stopped: set[str] = set()
        """Those that we took away."""
        self._known: set[str] = set()

    def get(self, job: str) -> RayJobState | None:
        """How it is, None where there is none. Raises Unavailable."""
        try:
            said = kubectl.kubectl("get", "rayjob", job, "--ignore-not-found", "-o", "json", *self.where).stdout
        except PlatformError as error:
            raise Unavailable(error.what, fix=error.fix) from None
        if not said.strip():
            return None
        self._known.add(job)
        return RayJobState.of(json.loads(said))

    def status(self, job: str) -> tuple[str, str] | None:
        """(PENDING, RUNNING or one of TERMINAL; what KubeRay says of it), None for an unknown job."""
        return self.verdict(job, self.get(job))

    def verdict(self, job: str, found: RayJobState | None) -> tuple[str, str] | None:
        """The same of a job that was looked at. One that was there and is not was taken away, by us or others."""
        if found is None:
            return ("STOPPED", "it was deleted") if job in self._known | self.stopped else None
        return found.status, found.message

    def stop(self, job: str) -> None:
        """Delete it: KubeRay then stops its driver, and takes its cluster away. Returns before it has."""
        self.stopped.add(job)
        kubectl.kubectl("delete", "rayjob", job, "--ignore-not-found", "--wait=false", *self.where)

    def log_stream(self, job: str, reconnect_timeout: float) -> LogStream:
        """The lines of its driver, and what KubeRay tells while there are none."""
        return _JobLogStream(self, job, reconnect_timeout)


def client_for(namespace: str) -> RayJobClient:
    """Those of a namespace where kubectl points now."""
    context = kubectl.kubectl("config", "current-context", allowed=(0, 1)).stdout.strip()
    return RayJobClient(f"{SCHEME}{context}/{namespace}")


class _JobLogStream(LogStream):
    """The log of the pod that submits the job, which repeats that of the driver, through `kubectl logs -f`.

    A connection begins at the log's first line, and so does a pod that takes the place of one that failed: a line is
    new once it has come more often than on any connection before. A line of ours is new once, for a driver says nothing
    twice, but Ray repeats the end of the log of a job that failed.
    """

    def __init__(self, jobs: RayJobClient, job: str, reconnect_timeout: float) -> None:
        super().__init__(job, reconnect_timeout)
        self._jobs = jobs
        self._begun = time.monotonic()
        self._state = RayJobState("", "", "", "", float("inf"), "")
        self._kubectl: subprocess.Popen[bytes] | None = None
        self._seen, self._came = Counter[int](), Counter[int]()
        self._part = b""
        self._new = 0
        self._told: set[str] = set()
        self._finishing = False

    def run(self) -> None:
        super().run()
        self._let_go()

    def close(self) -> None:
        super().close()
        if kubectl := self._kubectl:
            kubectl.terminate()

    def poll(self) -> tuple[str, str] | None:
        if time.monotonic() - self._begun > self._state.seconds:
            fix = f"kubectl -n {self._jobs.namespace} describe rayjob {self.job}"
            raise PlatformError(f"{self.job} did not end within {self._state.seconds:g} s", fix=fix)
        found = self._jobs.get(self.job)
        if found is not None:
            self._note(found)
        return self._jobs.verdict(self.job, found)

    def _note(self, found: RayJobState) -> None:
        if found.attempt != self._state.attempt:
            self._let_go()
            self._seen.clear()
        if str(found) != str(self._state) and not (self._seen and found.status != "PENDING"):
            self._told.clear()
            self._tell(str(found))
        self._state = found
        if found.status == "PENDING" and found.cluster:
            for trouble in pod_problems(found.cluster, *self._jobs.where):
                self._tell(trouble)

    def _tell(self, text: str) -> None:
        """Say it, once until its state is another."""
        if text and text not in self._told:
            self._told.add(text)
            self.lines.put(Notice(f"{self.job}: {text}"))

    def read(self) -> None:
        before = self._new
        if self._kubectl is None and self._state.status == "RUNNING":
            self._open()
        self._listen(LOOK)
        if self._kubectl is None:
            self.pause(self._new > before)

    def finish(self) -> None:
        self._finishing = True
        if self._kubectl is None:
            self._open()
        self._listen(REST)

    def outcome_without_report(self, said: Collection[str]) -> End:
        if self.status != "FAILED":
            return super().outcome_without_report(said)
        words = [line.removeprefix("raypath: ") for line in said if line.startswith("raypath: ")] or [str(self._state)]
        fix = f"kubectl -n {self._jobs.namespace} logs -l job-name={self.job}"
        return End(kind=PlatformError.__name__, what=f"{self.job}: {words[-1]}", fix=fix, trace="\n".join(said))

    def _open(self) -> None:
        command = ["kubectl", "logs", "-f", f"job/{self.job}", *self._jobs.where]
        # In a session of its own, for Ctrl-C is ours alone to hear.
        self._kubectl = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._came.clear()

    def _listen(self, seconds: float) -> None:
        """Take what comes within so many seconds, or until the connection ends."""
        end = time.monotonic() + seconds
        while self._kubectl is not None and (left := end - time.monotonic()) > 0:
            assert self._kubectl.stdout is not None
            if not select.select([self._kubectl.stdout], [], [], left)[0]:
                return
            if data := os.read(self._kubectl.stdout.fileno(), 1 << 16):
                self._take(data)
            else:
                self._ended()

    def _take(self, data: bytes) -> None:
        self.alive("log")
        *whole, self._part = (self._part + data).split(b"\n")
        for line in whole:
            text = line.decode(errors="replace").rstrip("\r")
            key = hash(text)
            self._came[key] = 1 if text.startswith(EVENT_PREFIX) else self._came[key] + 1
            if self._came[key] > self._seen[key]:
                self._seen[key] += 1
                self._new += 1
                self.lines.put(text)

    def _ended(self) -> None:
        """The connection has ended: with the pod, or it broke."""
        why = self._reap()
        if not why or self.closed or self._finishing or self.job in self._jobs.stopped:
            return
        if self._seen:
            self.lost("log", why)
        else:
            self._tell(f"no log yet: {why}")

    def _let_go(self) -> None:
        if self._kubectl is not None:
            self._kubectl.terminate()
            self._reap()

    def _reap(self) -> str:
        """Why kubectl ended, where that was no good end."""
        kubectl, self._kubectl, self._part = self._kubectl, None, b""
        assert kubectl is not None
        with kubectl:
            assert kubectl.stderr is not None
            said = kubectl.stderr.read().decode(errors="replace")
        return (last_line(said) or "kubectl was ended") if kubectl.returncode else ""
