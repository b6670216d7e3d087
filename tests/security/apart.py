"""Files read in a process of its own, whose memory is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

READ = """
import importlib, logging, sys
from pathlib import Path
from raypath.components.data.formats.readers import columns_in, rows_of
from raypath.components.core.columns import Column
from raypath.components.data.columns.schema import Columns
from raypath.components.data.sources.files import find

TEXTS = (Column(name="text"),)

def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) >> 10

for limit in sys.argv[2:]:
    place, value = limit.split("=")
    module, _, name = place.rpartition(".")
    assert hasattr(importlib.import_module(module), name)
    setattr(importlib.import_module(module), name, int(value))
before = peak()
try:
    [file] = find(sys.argv[1], logging.getLogger("raypath"))
    columns_in(file)
    print(sum(table.num_rows for _, table in rows_of(file, Columns(TEXTS, ("label",)))), "rows", end=" ")
except Exception as error:
    print(type(error).__name__, error, end=" ")
print(f"|{peak() - before}")
"""


def read_apart(path: Path, *limits: str) -> tuple[str, int]:
    """What reading a file in a process of its own gives, and the MiB that it took at most.

    limits: module.NAME=VALUE; what holds for a small limit holds for a large one, and takes less time.
    """
    line = [sys.executable, "-c", READ, path, *limits]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=True)
    said, _, grown = done.stdout.rpartition("|")
    return said, int(grown)
