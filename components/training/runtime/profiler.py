"""Profile training steps with PyTorch's profiler: a trace for chrome://tracing or Perfetto, and a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from raypath.components.training.job import TrainingJob

WARM = 3
"""Warm-up steps before the first profiled one."""


class Profiler:
    """Profile `steps` steps after a warm-up, once, then pass the files to `done`."""

    def __init__(self, steps: int, folder: Path, done: Callable[[Path], None]) -> None:
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._folder, self._done = folder, done
        self._inner = profile(
            activities=activities,
            schedule=schedule(wait=1, warmup=WARM - 1, active=steps, repeat=1),
            on_trace_ready=self._write,
            acc_events=True,
        )
        self._inner.start()

    def step(self) -> None:
        """Advance by one step."""
        self._inner.step()

    def stop(self) -> None:
        """Stop profiling."""
        self._inner.stop()

    def _write(self, found: profile) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        trace, table = self._folder / "trace.json.gz", self._folder / "profile.txt"
        found.export_chrome_trace(str(trace))
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table.write_text(found.key_averages().table(sort_by=order, row_limit=40), encoding="utf-8")
        for path in (trace, table):
            self._done(path)


def profiler_of(job: TrainingJob, is_rank_zero: bool) -> Profiler | None:
    """Return the profiler of a training, started; None where there is none."""
    if not job.params.profile or not is_rank_zero or job.scratch is None:
        return None
    return Profiler(job.params.profile, job.scratch / "profile", job.on_profile)
