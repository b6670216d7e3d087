"""Errors of real Ray tasks and actors: what the code in them raised, and what a step's outcome says of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components import DataError, ParamsError
from raypath.components.data.streaming.ray_errors import out_of_memory, unwrap, worker_died
from raypath.deploy.execution.ray_platform import outcome
from raypath.deploy.execution.step import Outcome


@pytest.fixture(scope="module", autouse=True)
def _by_value(ray_head: None) -> Iterator[None]:
    """Workers cannot import this module."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def _data_error() -> None:
    raise DataError("-1 rows", fix="count upwards", step="count")


def _chained() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ParamsError("no such setting", fix="set another") from error


def _value_error() -> None:
    raise ValueError("7 is odd")


def _nested() -> None:
    import ray

    ray.get(ray.remote(_data_error).options(num_cpus=0).remote())


def _raised(function: Callable[..., Any]) -> BaseException:
    import ray

    with pytest.raises(ray.exceptions.RayError) as caught:
        ray.get(ray.remote(function).options(num_cpus=0, max_retries=0).remote())
    return caught.value


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (_data_error, DataError("-1 rows", fix="count upwards", step="count")),
        (_nested, DataError("-1 rows", fix="count upwards", step="count")),
        (_chained, ParamsError("no such setting", fix="set another")),
        (_value_error, ValueError("7 is odd")),
    ],
)
def test_what_a_task_raised_is_found_below_rays_wrappers(function: Callable[..., Any], wanted: Exception) -> None:
    error = _raised(function)
    found = unwrap(error)
    assert not worker_died(error)
    assert isinstance(found, type(wanted))
    assert str(found) == str(wanted)
    if isinstance(wanted, DataError | ParamsError):
        assert type(found) is type(wanted), "not a class that Ray made"
        assert unwrap(found) is not error


def test_what_an_actor_raised_in_its_constructor_is_found() -> None:
    import ray

    class Actor:
        def __init__(self) -> None:
            _data_error()

        def go(self) -> None: ...

    with pytest.raises(ray.exceptions.RayActorError) as caught:
        ray.get(ray.remote(Actor).options(num_cpus=0).remote().go.remote())
    assert str(unwrap(caught.value)) == str(DataError("-1 rows", fix="count upwards", step="count"))


def test_an_error_without_ray_is_itself() -> None:
    error = OSError(28, "No space left on device")
    assert unwrap(error) is error
    assert not worker_died(error)


def test_a_steps_outcome_is_the_tasks_or_says_why_there_is_none() -> None:
    import ray

    def start(function: Callable[..., Any]) -> Any:
        return ray.remote(function).options(num_cpus=0, max_retries=0).remote()

    assert outcome(ray.put(Outcome(artifact={"rows": 3}))) == Outcome(artifact={"rows": 3})
    missing = outcome(start(_value_error))
    assert (missing.error, missing.what, missing.fix) == ("PlatformError", "ValueError: 7 is odd", "see the Ray logs")
    died = outcome(start(lambda: os._exit(3)))
    assert (died.error, died.fix) == ("Unavailable", "run the same command again")
    assert died.what.startswith("the worker died (")


def test_a_process_that_was_ended_for_lack_of_memory_is_named_so() -> None:
    """Ray's server is a program: its message cannot be caught here without filling this machine's memory."""
    import ray

    form = b"Memory on the node (IP: %s, ID: %s) was %sGB used / %sGB limit (%f)"
    assert form in (Path(ray.__file__).parent / "core/src/ray/raylet/raylet").read_bytes()
    values = (b"10.0.0.7", b"3fa85f64", b"22.91", b"23.54", 0.973)
    message = (b"1 worker(s) were killed\n" + form % values + b"\nTop 10 memory users: PID").decode()
    assert out_of_memory(message) == "a node ran out of memory (22.91 of 23.54 GB in use)"
    assert out_of_memory("the node was terminated") == ""
