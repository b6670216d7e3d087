"""A transform of tables that fails once, in a module that workers can import."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from raypath.components import DataError


@dataclass(frozen=True)
class Faulty:
    """Fails once at the row `at`: with an error, or with the death of its process."""

    marks: Path
    at: int
    kill: bool

    def __call__(self, table: pa.Table) -> pa.Table:
        mark = self.marks / "failed"
        if self.at in table["n"].to_pylist() and not mark.exists():
            mark.touch()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("this row fails once", fix="run again")
        return table
