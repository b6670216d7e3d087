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
from raypath.deploy.remote.events import EVENT_PREFIX, RunEnd, last_error_line
from raypath.deploy.remote.log_stream import TERMINAL, LogStream, Notice

SCHEME = "kuberay://"
POLL_INTERVAL = 5.0
"""Seconds between two polls of a job while its log is read."""
DRAIN_TIMEOUT = 20.0
"""Seconds to read the rest of the log of a job that has ended."""


@dataclass(frozen=True)
class RayJobState:
    """Status of a RayJob as KubeRay reports it."""

    deployment: str
    job: str
    message: str
    attempt: str
    """Ray's id of the job; KubeRay creates a new one for each attempt."""
    deadline: float
    """Seconds in which the job has to end."""
    cluster: str
    """Name of its RayCluster."""

    @classmethod
    def from_manifest(cls, found: dict[str, Any]) -> RayJobState:
        """Parse the object. Only the first line of Ray's message is kept; the rest repeats the end of the log."""
        status = found.get("status") or {}
        message = (str(status.get("message") or "").strip().splitlines() or [""])[0][:300]
        deployment, job, attempt = (
            str(status.get(f"job{name}") or "") for name in ("DeploymentStatus", "Status", "Id")
        )
        deadline = float(found["spec"].get("activeDeadlineSeconds") or "inf")
        return cls(deployment, job, message, attempt, deadline, str(status.get("rayClusterName") or ""))

    def __str__(self) -> str:
        return " ".join(part for part in (self.deployment, self.job, self.message) if part)

    @property
    def status(self) -> str:
        """PENDING, RUNNING or one of TERMINAL. A failed attempt is not terminal: KubeRay may start another one."""
        if self.deployment == "Complete":
            return self.job if self.job in TERMINAL else "SUCCEEDED"
        if self.deployment in ("Failed", "ValidationFailed"):
            return "FAILED"
        return "RUNNING" if self.deployment == "Running" else "PENDING"


class RayJobClient:
    """Client for an address kuberay://CONTEXT/NAMESPACE; an empty context is kubectl's current one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.context, _, self.namespace = address.removeprefix(SCHEME).rpartition("/")
        self.where = ("-n", self.namespace, *(("--context", self.context) if self.context else ()))
        self.stopped: set[str] = set()
        """Jobs that this client deleted."""
        self._known: set[str] = set()

    def get(self, job: str) -> RayJobState | None:
        """The state of a job, None for an unknown one. Raises Unavailable."""
        try:
            output = kubectl.kubectl("get", "rayjob", job, "--ignore-not-found", "-o", "json", *self.where).stdout
        except PlatformError as error:
            raise Unavailable(error.what, fix=error.fix) from None
        if not output.strip():
            return None
        self._known.add(job)
        return RayJobState.from_manifest(json.loads(output))

    def status(self, job: str) -> tuple[str, str] | None:
        """(PENDING, RUNNING or one of TERMINAL; KubeRay's message), None for an unknown job."""
        return self.status_of(job, self.get(job))

    def status_of(self, job: str, found: RayJobState | None) -> tuple[str, str] | None:
        """`status` from a state that was just read. A job that existed and is gone was deleted, so it is STOPPED."""
        if found is None:
            return ("STOPPED", "it was deleted") if job in self._known | self.stopped else None
        return found.status, found.message

    def stop(self, job: str) -> None:
        """Delete the job; KubeRay then stops the driver and deletes the cluster. Returns before it has."""
        self.stopped.add(job)
        kubectl.kubectl("delete", "rayjob", job, "--ignore-not-found", "--wait=false", *self.where)

    def log_stream(self, job: str, reconnect_timeout: float) -> LogStream:
        """Stream the driver's log, and KubeRay's messages while there is none."""
        return _JobLogStream(self, job, reconnect_timeout)


def client_for(namespace: str) -> RayJobClient:
    """Client for a namespace of kubectl's current context."""
    context = kubectl.kubectl("config", "current-context", allowed=(0, 1)).stdout.strip()
    return RayJobClient(f"{SCHEME}{context}/{namespace}")


class _JobLogStream(LogStream):
    """Log of the pod that submits the job, which repeats the driver's log, through `kubectl logs -f`.

    Each connection begins at the first line of the log, and so does a pod that replaces a failed one: a line is new
    once it came more often than on any connection before. An event is new only once: a driver writes no event twice,
    but Ray repeats the end of the log of a failed job.
    """

    def __init__(self, jobs: RayJobClient, job: str, reconnect_timeout: float) -> None:
        super().__init__(job, reconnect_timeout)
        self._jobs = jobs
        self._start_time = time.monotonic()
        self._state = RayJobState("", "", "", "", float("inf"), "")
        self._kubectl: subprocess.Popen[bytes] | None = None
        self._emitted, self._received = Counter[int](), Counter[int]()
        self._partial = b""
        self._new = 0
        self._reported: set[str] = set()
        self._draining = False

    def run(self) -> None:
        super().run()
        self._disconnect()

    def close(self) -> None:
        super().close()
        if kubectl := self._kubectl:
            kubectl.terminate()

    def poll(self) -> tuple[str, str] | None:
        if time.monotonic() - self._start_time > self._state.deadline:
            fix = f"kubectl -n {self._jobs.namespace} describe rayjob {self.job}"
            raise PlatformError(f"{self.job} did not end within {self._state.deadline:g} s", fix=fix)
        found = self._jobs.get(self.job)
        if found is not None:
            self._report_state(found)
        return self._jobs.status_of(self.job, found)

    def _report_state(self, found: RayJobState) -> None:
        if found.attempt != self._state.attempt:
            self._disconnect()
            self._emitted.clear()
        if str(found) != str(self._state) and not (self._emitted and found.status != "PENDING"):
            self._reported.clear()
            self._report(str(found))
        self._state = found
        if found.status == "PENDING" and found.cluster:
            for trouble in pod_problems(found.cluster, *self._jobs.where):
                self._report(trouble)

    def _report(self, text: str) -> None:
        """Report a message, once for each state of the job."""
        if text and text not in self._reported:
            self._reported.add(text)
            self.lines.put(Notice(f"{self.job}: {text}"))

    def read(self) -> None:
        before = self._new
        if self._kubectl is None and self._state.status == "RUNNING":
            self._connect()
        self._read_for(POLL_INTERVAL)
        if self._kubectl is None:
            self.back_off(self._new > before)

    def drain(self) -> None:
        self._draining = True
        if self._kubectl is None:
            self._connect()
        self._read_for(DRAIN_TIMEOUT)

    def end_of_lost_driver(self, log: Collection[str]) -> RunEnd:
        if self.status != "FAILED":
            return super().end_of_lost_driver(log)
        reason = last_error_line(log) or str(self._state)
        fix = f"kubectl -n {self._jobs.namespace} logs -l job-name={self.job}"
        return RunEnd(kind=PlatformError.__name__, what=f"{self.job}: {reason}", fix=fix, trace="\n".join(log))

    def _connect(self) -> None:
        command = ["kubectl", "logs", "-f", f"job/{self.job}", *self._jobs.where]
        # A session of its own keeps Ctrl-C away from kubectl.
        self._kubectl = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._received.clear()

    def _read_for(self, seconds: float) -> None:
        """Read for so many seconds, or until the connection ends."""
        end = time.monotonic() + seconds
        while self._kubectl is not None and (left := end - time.monotonic()) > 0:
            assert self._kubectl.stdout is not None
            if not select.select([self._kubectl.stdout], [], [], left)[0]:
                return
            if data := os.read(self._kubectl.stdout.fileno(), 1 << 16):
                self._emit(data)
            else:
                self._disconnected()

    def _emit(self, data: bytes) -> None:
        self.connected("log")
        *complete, self._partial = (self._partial + data).split(b"\n")
        for line in complete:
            text = line.decode(errors="replace").rstrip("\r")
            key = hash(text)
            self._received[key] = 1 if text.startswith(EVENT_PREFIX) else self._received[key] + 1
            if self._received[key] > self._emitted[key]:
                self._emitted[key] += 1
                self._new += 1
                self.lines.put(text)

    def _disconnected(self) -> None:
        """Handle the end of a connection, which ends with the pod or breaks."""
        why = self._reap()
        if not why or self.closed or self._draining or self.job in self._jobs.stopped:
            return
        if self._emitted:
            self.connection_lost("log", why)
        else:
            self._report(f"no log yet: {why}")

    def _disconnect(self) -> None:
        if self._kubectl is not None:
            self._kubectl.terminate()
            self._reap()

    def _reap(self) -> str:
        """Wait for kubectl; its error message, "" for a normal end."""
        kubectl, self._kubectl, self._partial = self._kubectl, None, b""
        assert kubectl is not None
        with kubectl:
            assert kubectl.stderr is not None
            output = kubectl.stderr.read().decode(errors="replace")
        return (last_line(output) or "kubectl was ended") if kubectl.returncode else ""
