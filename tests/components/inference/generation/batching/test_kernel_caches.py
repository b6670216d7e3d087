"""Memory of the engine transformers in bf16 while rows of many lengths come and go: `python -m ... FOLDER`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.models.process import KERNEL_CACHES
from tests.tiny_chat import chat_folder

ROOT = Path(__file__).parents[5]


def load(folder: Path, steps: int) -> list[float]:
    """Resident MiB after each step of an engine that is full."""
    import torch

    torch.set_num_threads(1)
    engine, rng, found = TransformersEngine.open(folder, "bf16", "cpu"), random.Random(0), []
    for number in range(steps):
        for each in range(12 - engine.statistics().running):
            prompt = [rng.randrange(250) for _ in range(rng.randint(3, 150))]
            settings = SamplingSettings(max_new_tokens=rng.randint(1, 40), ignore_stop=True)
            engine.add(f"{number}-{each}", prompt, settings)
        engine.step()
        found.append(psutil.Process().memory_info().rss / 2**20)
    return found


def has_bf16() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "avx512_bf16" in cpu.read_text()


@pytest.mark.skipif(not has_bf16(), reason="oneDNN compiles kernels for bf16 where the processor has it")
def test_kernels_of_shapes_that_do_not_come_again_are_dropped(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in KERNEL_CACHES}
    command = [sys.executable, "-m", "tests.components.inference.generation.batching.test_kernel_caches"]
    done = subprocess.run(
        [*command, str(chat_folder(tmp_path, context=1_024))],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    memory = json.loads(done.stdout.splitlines()[-1])
    assert memory[-1] - memory[60] < 60, "with all kernels it is 150 MiB"


if __name__ == "__main__":
    print(json.dumps(load(Path(sys.argv[1]), 240)))
