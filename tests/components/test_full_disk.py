"""The workflow `chat` on a full disk: each step that writes ends with one line, and resumes once there is room."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.context import Tracking
from raypath.components.core.errors import StoreError
from raypath.components.core.graph import Graph
from raypath.deploy.execution import runner
from raypath.deploy.execution.runner import Runner
from raypath.deploy.execution.step import Outcome
from raypath.deploy.store.store import Store
from raypath.workflows.chat import Chat, chat
from tests.byte_llama import tiny_chat
from tests.deploy.execution.in_process import Here, Nobody

STEPS = ("read", "split", "configure", "inspect", "preprocess", "finetune", "evaluate_generation", "register")
LINE = r"[^\n]*(disk|space)[^\n]*; free [^\n]*"
BLOCK = 4_096
"""Bytes of a page, in which a tmpfs counts."""


class Filling(Here):
    """Steps in this process. `left`: bytes that are free on the disk when a step begins to work, by its name."""

    def __init__(self, disk: Path, uri: str) -> None:
        super().__init__()
        self.filler, self.uri, self.left = disk / "filler", uri, dict[str, int]()
        self.failed: list[Outcome] = []

    def tracking(self, experiment: str, run: str) -> Tracking:
        return Tracking(uri=self.uri, experiment=experiment)

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        found = []
        for handle in handles:
            if (left := self.left.get(handle.spec.step)) is not None:
                free = shutil.disk_usage(self.filler.parent).free
                with open(self.filler, "wb") as file:
                    file.write(bytes(free - left))
            [(_, outcome)] = super().poll([handle], timeout)
            self.failed += [outcome] if outcome.error else []
            found.append((handle, outcome))
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """The workflow up to its version, on a tiny decoder."""
    with open(tmp_path / "mine.jsonl", "w", encoding="utf-8") as file:
        for row in range(120):
            turns = [("user", f"say {row % 7}"), ("assistant", str(row % 7) * 3)]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    settings = {
        "read.uri": str(tmp_path / "mine.jsonl"),
        "finetune.base": str(tiny_chat(tmp_path / "base")),
        "finetune.lora": 4,
        "finetune.epochs": 1,
        "finetune.threads": 1,
        "finetune.checkpoint_seconds": 0.0,
        "evaluate.max_new_tokens": 4,
        "registry.precision": "fp32",
    }
    traced = chat.trace(Chat().override(settings))
    return dataclasses.replace(traced, nodes=traced.nodes[:-1], result=traced.nodes[-1].inputs[0])


def _run(graph: Graph, home: Path, platform: Filling) -> dict[str, Any]:
    """Run the workflow; returns what each step made, without folders."""
    one = Runner(graph, Store(home).open(), platform, Nobody())
    one.execute()
    return {name: artifact.model_dump(mode="json") for name, artifact in one.done.items()}


def _size(folder: Path) -> int:
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a disk needs root")
def test_each_step_says_that_the_disk_is_full_and_resumes(
    graph: Graph, disk: Path, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MIN_FREE", 0)  # the check before a step: what it lets through fills up later
    spare = tmp_path / "spare"
    wanted = _run(graph, spare, Filling(tmp_path, mlflow_uri))
    assert tuple(wanted) == STEPS
    platform, home = Filling(disk, mlflow_uri), disk / "home"
    for step in STEPS:
        half = _size(Path(wanted[step]["uri"])) // (2 * BLOCK) * BLOCK
        for left in dict.fromkeys((0, half)):
            platform.left = {step: left}
            with pytest.raises(StoreError) as error:
                _run(graph, home, platform)
            assert re.fullmatch(LINE, str(error.value))
            assert platform.failed, (step, left)
            for outcome in platform.failed:  # two steps run beside one another
                assert outcome.error == "StoreError", (step, left)
                assert "not written" not in " ".join(outcome.warnings)
                assert re.fullmatch(LINE, f"{outcome.what}; {outcome.fix}")
            platform.failed.clear()
            platform.filler.unlink(missing_ok=True)
    platform.left = {}
    found = _run(graph, home, platform)
    for step in ("read", "split", "preprocess", "finetune"):
        assert found[step]["digest"] == wanted[step]["digest"], step
    assert found["evaluate_generation"]["metrics"] == wanted["evaluate_generation"]["metrics"]
