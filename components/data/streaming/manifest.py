"""Manifest of a dataset whose shards were written by tasks: names, rows, sizes and SHA-256 of its Parquet files.

The digest of such an artifact is that of the manifest: no process reads the shards again to compute it. Datasets that
one process wrote have no manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST = "_manifest.json"
"""Readers of Parquet folders ignore names that begin with an underscore."""


class WrittenShard(BaseModel):
    """One Parquet file. counted: rows for which the counted column of the transform is true. tally: the values in its
    column of lists that are counted, with their numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    bytes: int
    sha256: str
    counted: int = 0
    tally: tuple[tuple[str, int], ...] = ()


class Manifest(BaseModel):
    """The shards of a dataset in row order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["raypath.shards/1"] = "raypath.shards/1"
    shards: tuple[WrittenShard, ...]

    def write(self, folder: Path) -> None:
        """Write the manifest of a folder."""
        (folder / MANIFEST).write_text(
            self.model_dump_json(indent=1, exclude={"shards": {"__all__": {"tally"}}}), encoding="utf-8"
        )


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder; None without one."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
