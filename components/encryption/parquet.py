"""Parquet files of a home, sealed where it is encrypted, and read into memory without a plaintext copy.

The whole file is sealed, not its columns by Parquet's own modular encryption: names of columns, statistics and numbers
of rows are covered as well, the keys are those of all other files, and a file that was shortened or exchanged is found.
The files that are read here are small; artifacts are opened in memory by the store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.core.files import new_file
from raypath.components.encryption.vault import vault_for


def write_parquet(path: Path, table: Any, temporary: Path | None = None) -> None:
    """Write a table atomically, with mode 0600. Raises OSError; UserError for a wrong key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vault = vault_for(path)
    if vault is None:
        with new_file(path, temporary) as file:
            pq.write_table(table, file, compression="zstd")
        return
    target = pa.BufferOutputStream()
    pq.write_table(table, target, compression="zstd")
    vault.write(path, target.getvalue().to_pybytes(), temporary)


def open_parquet(path: Path) -> Any:
    """Return pyarrow's ParquetFile. Raises StoreError for an altered one, UserError for a wrong key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vault = vault_for(path)
    return pq.ParquetFile(path if vault is None else pa.BufferReader(vault.read(path)))
