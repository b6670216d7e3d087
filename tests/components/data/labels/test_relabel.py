"""Labels of a stored dataset are replaced in place, over files and row groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.data.labels.relabel import relabel


def test_labels_are_replaced_in_place(tmp_path: Path) -> None:
    for number, labels in enumerate((["a", "b", None, "a"], ["c", "a"])):
        rows = pa.table({"text": [f"{number}.{n}" for n in range(len(labels))], "label": pa.array(labels, pa.string())})
        pq.write_table(rows, tmp_path / f"part-{number}.parquet", row_group_size=2)
    relabel(tmp_path, {"a": "A", "c": "C"})
    files = sorted(path.name for path in tmp_path.iterdir())
    assert all(name.endswith(".parquet") and not name.startswith(("part-0", "part-1.")) for name in files), files
    rows = pa.concat_tables(pq.read_table(tmp_path / name) for name in files)
    assert rows.to_pydict() == {
        "text": ["0.0", "0.1", "0.2", "0.3", "1.0", "1.1"],
        "label": ["A", "b", None, "A", "C", "A"],
    }
