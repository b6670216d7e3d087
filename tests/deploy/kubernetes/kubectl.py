"""Fake kubectl: an executable that answers for a cluster with one RayJob, from files in its folder.

manifest   what was created           states   how the job is, a line for each look; the last one stays
attempt    which cluster it has       log-N    what the driver of that attempt has said; none while its pod starts
over       that pod has ended         cuts     after how many lines each `logs -f` breaks in turn; +: with its pod
calls      what was asked                nodes, pods   what there is of them, as JSON; none without the file
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NAME = "job-x"


def put(folder: Path) -> None:
    """Make it the kubectl of a folder, which the caller puts on PATH."""
    tool = folder / "kubectl"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} "{folder}" "$@"\n')
    tool.chmod(0o755)


def main(folder: Path, words: Sequence[str]) -> int:
    with (folder / "calls").open("a") as calls:
        print(*words, file=calls)
    if words[0] == "create":
        (folder / "manifest").write_text(sys.stdin.read())
    said = {"config": "here", "auth": "yes", "create": NAME}.get(words[0], "")
    if words[0] == "get" and words[1] in ("nodes", "pods"):
        there = folder / words[1]
        said = there.read_text() if there.exists() else '{"items": []}'
    elif words[0] == "get":
        return _get(folder)
    if words[0] == "logs":
        return _logs(folder)
    if words[0] == "delete":
        (folder / "states").write_text("GONE\n")
        (folder / "over").touch()
    print(said)
    return 0


def _next(path: Path, keep: bool) -> str:
    """The first line of a file, which goes; keep: unless it is the last one."""
    lines = path.read_text().splitlines() if path.exists() else []
    if len(lines) > keep:
        path.write_text("".join(f"{line}\n" for line in lines[1:]))
    return lines[0] if lines else ""


def _get(folder: Path) -> int:
    said = _next(folder / "states", keep=True)
    if said == "FAIL":
        return _failed("The connection to the server was lost")
    if said == "GONE":
        return 0
    attempt = int((folder / "attempt").read_text())
    deployment, _, rest = said.partition(" ")
    job, _, message = rest.partition(" ")
    # As KubeRay has it: the next attempt has another id.
    identity = "" if deployment == "Initializing" else f"ray-{attempt}"
    status = {
        "jobDeploymentStatus": deployment,
        "jobStatus": job,
        "message": message,
        "jobId": identity,
        "rayClusterName": "x",
    }
    if deployment == "Retrying":
        (folder / "attempt").write_text(str(attempt + 1))
    seconds = float((folder / "seconds").read_text()) if (folder / "seconds").exists() else 60
    print(json.dumps({"spec": {"activeDeadlineSeconds": seconds}, "status": status}))
    return 0


def _logs(folder: Path) -> int:
    log = folder / f"log-{(folder / 'attempt').read_text().strip()}"
    if not log.exists():
        return _failed('container "submitter" in pod "job-x-1" is waiting to start: ContainerCreating')
    cut = _next(folder / "cuts", keep=False)
    pod = folder / "pod"
    print(f"submitted by pod {pod.read_text() if pod.exists() else '1'}", flush=True)
    if cut.endswith("+"):
        pod.write_text("2")
    told, at = 0, 0
    while True:
        ended = (folder / "over").exists()
        text = log.read_text()
        whole = text[at : text.rfind("\n") + 1]
        at += len(whole)
        for line in whole.splitlines():
            if cut and told == int(cut.rstrip("+")):
                print(line[:9], end="", flush=True)
                return 0 if cut.endswith("+") else _failed("unexpected EOF")
            told += 1
            print(line, flush=True)
        if ended:
            return 0
        time.sleep(0.05)


def _failed(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    here = Path(sys.argv[1])
    os.umask(0o022)
    sys.exit(main(here, sys.argv[2:]))
