"""The process: its PyTorch settings, imports of large packages, and the CPU cores, GPUs and memory that it may use.

Entry points call `configure_process` once; constructors change no global state. Resources are those of the machine,
within the limits of the process's control group and CPU affinity.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Files with the limits of the control group (cgroup v2); absent on other systems than Linux."""
MODELS = (
    "torch",
    "transformers",
    "transformers.activations",
    "transformers.masking_utils",
    "transformers.modeling_layers",
    "transformers.generation.utils",
)
"""What every model of transformers imports."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of glibc's mallopt: free bytes at the top of the heap before it shrinks, blocks that are mapped apart."""


KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables with the number of kernels that oneDNN keeps, and PyTorch's interface to it; each 1,024."""
KERNELS = 64
"""Kernels for a model whose shapes change with each step: some times those of one step."""


def cpu_count() -> int:
    """Number of CPU cores that this process may use: at least one, a fraction of a core rounded up."""
    # macOS has no CPU affinity.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _text(CGROUP / "cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit()):
        return available
    return max(1, min(available, math.ceil(int(quota) / int(period))))


def bound_kernel_caches() -> None:
    """Keep few of the kernels that oneDNN compiles for each shape of a bf16 matmul, about a MiB each.

    For models that generate: the shapes of a step hardly come again, and their kernels would take gigabytes. oneDNN
    reads the numbers at the first matmul in bf16 of the process; later they stay. Variables that are set are kept.
    """
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, str(KERNELS))


def gpu_count() -> int:
    """Number of NVIDIA GPUs on this machine, counted without importing torch."""
    return len([name for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit()])


def total_memory() -> int:
    """Memory of the machine or the container, in bytes."""
    import psutil

    return int(min(psutil.virtual_memory().total, _number(CGROUP / "memory.max") or math.inf))


def free_memory() -> float:
    """Memory that is available on the machine or in the container, in bytes."""
    import psutil

    free = float(psutil.virtual_memory().available)
    limit, used = (_number(CGROUP / f"memory.{name}") for name in ("max", "current"))
    return min(free, limit - used) if limit and used else free


def _number(path: Path) -> float:
    """Read a number from a kernel file; 0 for `max` and for a missing file."""
    try:
        return float(_text(path))
    except ValueError:
        return 0.0


def _text(path: Path) -> str:
    """Read a kernel file; "" for a missing file."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def retained_memory() -> Iterator[None]:
    """Keep freed memory in the process within a `with` block, and return it to the system at the end.

    Otherwise glibc maps large blocks anew each time, and the kernel clears their pages: a tenth of the time of a
    training step on a CPU, which frees and allocates all gradients. Nothing changes with another allocator.
    """
    libc = ctypes.CDLL(None)
    if not all(hasattr(libc, name) for name in ("mallopt", "malloc_trim")):
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, 65_536)
        libc.mallopt(M_TRIM_THRESHOLD, 128 << 10)
        libc.malloc_trim(0)


@contextlib.contextmanager
def without_collections(freeze: bool = False) -> Iterator[None]:
    """Make objects without garbage collections meanwhile.

    freeze: leave out of later collections all that exists at the end, but the garbage that exists before. For the
    start of a process, before there is a model: a cycle of objects that is in use at the end is never freed.
    """
    enabled = gc.isenabled()
    gc.disable()
    if freeze:
        gc.collect()  # garbage that is frozen would stay
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if enabled:
            gc.enable()


def import_large(*names: str) -> None:
    """Import packages, before there is a model in the process; does nothing for those that are imported.

    torch and a model of transformers make a million objects that stay, and Python looks through them again and again
    for garbage meanwhile, a fifth of the time of the import.
    """
    missing = [name for name in names if name not in sys.modules]
    if missing:
        with without_collections(freeze=True):
            for name in missing:
                importlib.import_module(name)


def configure_process(threads: int = 0, seed: int | None = None) -> None:
    """Set CPU threads (0 keeps PyTorch's), the random seed (None keeps it) and, on a GPU, the attention backend.

    cuDNN's attention is disabled: it plans anew for each input shape, and hardly two batches share one. This costs
    13 ms of CPU time a forward call and 17 ms backward, where a whole step of MiniLM-L6 over 16,384 tokens takes an
    H100 9 ms.
    """
    import_large("torch")
    import torch

    if threads:
        torch.set_num_threads(threads)
    if seed is not None:
        torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.backends.cuda.enable_cudnn_sdp(False)
