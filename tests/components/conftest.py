"""Contexts by hand, finished artifacts, and one small Ray for the whole session."""

from __future__ import annotations

import gc
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from components import Artifact, Context

A = TypeVar("A", bound=Artifact)
MakeContext = Callable[..., Context]


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    """`make_context("read")`: a context with fresh folders; further fields by keyword."""
    numbers = itertools.count()

    def make(step: str, **fields: Any) -> Context:
        place = tmp_path / f"step-{next(numbers)}"
        for name in ("out", "scratch"):
            (place / name).mkdir(parents=True)
        return Context(step=step, out=place / "out", scratch=place / "scratch", workers=2, **fields)

    return make


def settled(ctx: Context, made: A) -> A:
    """What the runner does with an artifact, for tests: absolute addresses, nested ones included."""
    parts = {name: settled(ctx, part) for name, part in made.parts()}
    return made.settled(str(ctx.out / made.uri), "", **parts)


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local Ray with two CPUs."""
    import ray

    token = tmp_path_factory.mktemp("ray") / "token"
    token.touch(mode=0o600)
    token.write_text("0" * 64)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    # Ray warns about a default of its own that will change; it is nothing we chose.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 << 20)
    yield
    with warnings.catch_warnings():
        # Ray does not wait for the processes it ends, and Popen complains of that when it is collected.
        warnings.simplefilter("ignore", ResourceWarning)
        ray.shutdown()
        gc.collect()
