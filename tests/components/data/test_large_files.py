"""Files of more rows than are read at once: the rows, bytes and lines that messages name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError
from raypath.components.data.formats.parse_errors import BLOCK
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.parquet import GROUP_ROWS, TableWriter, parquet_files, scan
from raypath.components.read import ReadParams, read

WIDE = "word " * 100
ROWS = 2 * GROUP_ROWS + 1500
assert ROWS * len(WIDE) > 2 * BLOCK


def error(make_context: Callable[..., Context], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read.fn(make_context("read"), ReadParams(uri=str(path)))
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("bad", [GROUP_ROWS + 1, ROWS])
def test_an_empty_text_is_named_by_its_row(
    tmp_path: Path, make_context: Callable[..., Context], name: str, bad: int
) -> None:
    texts = [WIDE if row != bad else " " for row in range(1, ROWS + 1)]
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts, "label": ["a"] * ROWS}), path)
    elif name == "a.csv":
        path.write_text("text,label\n" + "".join(f"{text},a\n" for text in texts))
    else:
        path.write_text("".join(f'{{"text": "{text}", "label": "a"}}\n' for text in texts))
    assert error(make_context, path).startswith(f"{name}: column text is empty in row {bad} (header not counted)")


@pytest.mark.parametrize("bad", [2, GROUP_ROWS + 3])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 5, "label": "a"}', "has int in row {bad}"),
        ('{"text": "b", "label": ["a"]}', "has list in row {bad}"),
        ('{"text": "\\ud800", "label": "a"}', "a lone surrogate (\\ud800-\\udfff) in rows {first}-{last}"),
    ],
)
def test_a_wrong_type_in_json_is_named_by_its_row(
    tmp_path: Path, make_context: Callable[..., Context], line: str, message: str, bad: int
) -> None:
    lines = ['{"text": "b", "label": "a"}'] * (GROUP_ROWS + 5)
    lines[bad - 1] = line
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    first, last = (1, GROUP_ROWS) if bad <= GROUP_ROWS else (GROUP_ROWS + 1, GROUP_ROWS + 5)
    assert message.format(bad=bad, first=first, last=last) in error(make_context, tmp_path / "a.jsonl")


def test_many_empty_texts_are_three_rows_and_a_count(tmp_path: Path, make_context: Callable[..., Context]) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + ",a\n" * 5)
    assert "is empty in row 1, 2, 3 and at least 2 more" in error(make_context, tmp_path / "a.csv")


@pytest.mark.parametrize("at", [BLOCK - 1, BLOCK, 3 * BLOCK // 2])
def test_a_bad_byte_far_into_a_file_is_named_by_its_offset_and_line(
    tmp_path: Path, make_context: Callable[..., Context], at: int
) -> None:
    """Also where its character began in the block before."""
    line = b"word " * 20 + b",a\n"
    data = (b"text,label\n" + line * (at // len(line)))[: at - 3].ljust(at - 3, b"x") + b",a\n"
    (tmp_path / "a.csv").write_bytes(data + b"\xe5\xe5 ,a\n")
    wanted = f"a.csv is not UTF-8 at byte {at} (line {data.count(10) + 1})"
    assert error(make_context, tmp_path / "a.csv").startswith(wanted)


def test_rows_go_to_several_files_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FILE_ROWS", 2 * GROUP_ROWS)
    table = pa.table({"text": [str(row) for row in range(ROWS)]})
    with TableWriter(tmp_path, table.schema) as writer:
        for start in range(0, ROWS, 700):
            writer.write(table.slice(start, 700))
    files = parquet_files(tmp_path)
    assert [pq.read_metadata(path).num_rows for path in files] == [2 * GROUP_ROWS, ROWS - 2 * GROUP_ROWS]
    assert [path.name for path in files] == ["00000.parquet", "00001.parquet"]
    groups: list[Any] = list(scan(tmp_path))
    assert [group.num_rows for group in groups] == [GROUP_ROWS, GROUP_ROWS, ROWS - 2 * GROUP_ROWS]
    assert pa.concat_tables(groups)["text"].to_pylist() == table["text"].to_pylist()
