"""CPU cores and memory, those of the machine or what the control group leaves of them; imports of large packages."""

import gc
import importlib
import importlib.util
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from raypath.components.models import process
from raypath.components.models.process import MODELS, import_large, without_collections

MODULE = "import gc\nENABLED = gc.isenabled()\nKEPT = [[] for _ in range(5_000)]\n"


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a control group without limits."""
    monkeypatch.setattr(process, "CGROUP", tmp_path)
    return tmp_path


def test_free_memory_is_that_of_the_machine(group: Path) -> None:
    assert process.free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.1)
    (group / "memory.current").write_text("400\n")
    (group / "memory.max").write_text("max\n")
    assert process.free_memory() > 1 << 20


def test_free_memory_is_what_the_group_leaves(group: Path) -> None:
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("400\n")
    assert process.free_memory() == 600
    (group / "memory.max").write_text(f"{1 << 60}\n")
    assert process.free_memory() < 1 << 45, "a limit above what the machine has is none"


@pytest.mark.parametrize(
    ("limit", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("150000 100000", 2), ("max 100000", 64), ("", 64)]
)
def test_cores_are_those_the_group_may_use(
    group: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    (group / "cpu.max").write_text(f"{limit}\n")
    assert process.cpu_count() == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert process.cpu_count() == 1


def test_total_memory_is_that_of_the_group_where_it_has_less(group: Path) -> None:
    machine = psutil.virtual_memory().total
    assert process.total_memory() == machine
    (group / "memory.max").write_text("max\n")
    assert process.total_memory() == machine
    (group / "memory.max").write_text("1000\n")
    assert process.total_memory() == 1000
    (group / "memory.max").write_text(f"{1 << 60}\n")
    assert process.total_memory() == machine


def test_cores_without_affinity_are_those_of_the_machine(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert process.cpu_count() == 6


def test_freed_memory_is_kept_within_the_block_and_returned_after_it() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("mallopt is glibc's")

    def faults(megabytes: int) -> int:
        """Pages that are mapped when a block is allocated, written to and freed."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(megabytes << 18)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    size = 96
    faults(size)
    assert faults(size) >= size << 3, "pages are mapped anew each time"
    with process.retained_memory():
        assert min(faults(size) for _ in range(5)) < size
        held = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss < held - (size << 19)
    assert faults(size) >= size << 3


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "large_package.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "large_package"
    sys.modules.pop("large_package", None)


def test_a_package_is_imported_without_collections_and_left_out_of_later_ones(large: str) -> None:
    before = gc.get_freeze_count()
    import_large(large)
    assert sys.modules[large].ENABLED is False
    assert gc.isenabled()
    after = gc.get_freeze_count()
    assert after >= before + 5_000
    import_large(large)
    assert gc.get_freeze_count() == after, "rows and models that came since stay in the reach of collections"


def test_collections_that_were_off_stay_off(large: str) -> None:
    gc.disable()
    try:
        import_large(large)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_failed_import_leaves_collections_on(large: str, tmp_path: Path) -> None:
    (tmp_path / f"{large}.py").write_text("import gc\nassert gc.isenabled()\n")
    with pytest.raises(AssertionError), without_collections():
        importlib.import_module(large)
    assert gc.isenabled()


def test_what_models_import_exists() -> None:
    assert all(importlib.util.find_spec(name) for name in MODELS)
