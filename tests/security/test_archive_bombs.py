"""Archives and workbooks from strangers: small files that stand for gigabytes, or for endless work."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from raypath.components.core.columns import Column
from raypath.components.core.errors import DataError
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import columns_in, rows_of
from raypath.components.data.sources.data_file import DataFile
from tests.security.apart import read_apart

openpyxl = pytest.importorskip("openpyxl")
MIB = 1 << 20
COLUMNS = Columns((Column(name="text"),), ("label",))
CELL = '<c t="inlineStr"><is><t>tea</t></is></c>'
ROW = f'<row r="{{0}}">{CELL}{CELL}</row>'
Parts = dict[str, bytes]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_members_that_zipfile_decompresses_at_once(tmp_path: Path, method: int) -> None:
    """1,283 bytes of bzip2 took 3 GB."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive, archive.open("a.jsonl", "w") as member:
        member.write(b'{"text": "')
        for _ in range(100):
            member.write(b"a" * MIB)
    with pytest.raises(DataError, match="has an unsupported compression method; write the zip again with deflate"):
        columns_in(DataFile(tmp_path / "a.zip", "json", member="a.jsonl"))


def book(path: Path) -> Parts:
    """The parts of a workbook with a header and a row."""
    made = openpyxl.Workbook()
    made.active.append(["text", "label"])
    made.active.append(["tea", "x"])
    made.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, parts: Parts, method: int = zipfile.ZIP_DEFLATED) -> DataFile:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return DataFile(path, "excel")


def with_rows(parts: Parts, rows: str) -> Parts:
    sheet = parts["xl/worksheets/sheet1.xml"].replace(b"</sheetData>", rows.encode() + b"</sheetData>")
    return {**parts, "xl/worksheets/sheet1.xml": sheet}


def test_rows_that_are_far_away(tmp_path: Path) -> None:
    """Rows between are not made up: a row numbered two billion took hours."""
    parts = book(tmp_path / "a.xlsx")
    near = write(tmp_path / "near.xlsx", with_rows(parts, ROW.format(1_000_000)))
    assert [(row, table.num_rows) for row, table in rows_of(near, COLUMNS)] == [(1, 1), (999_999, 1)]
    for number in (2_000_000_000, 1):
        file = write(tmp_path / "b.xlsx", with_rows(parts, ROW.format(number)))
        with pytest.raises(DataError, match=f"has a row numbered {number} behind row 2"):
            list(rows_of(file, COLUMNS))


@pytest.mark.parametrize(
    "part", ["xl/styles.xml", "[Content_Types].xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels"]
)
def test_parts_that_are_read_whole(tmp_path: Path, part: str) -> None:
    parts = book(tmp_path / "a.xlsx")
    parts[part] = parts[part][:-1] + b" " * (17 * MIB) + b">"
    file = write(tmp_path / "b.xlsx", parts)
    assert file.path.stat().st_size < 100_000
    with pytest.raises(DataError, match="has a part of more than 16 MiB; save the sheet as csv"):
        columns_in(file)


def test_parts_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    parts = book(tmp_path / "a.xlsx") | {"xl/theme/theme1.xml": b" " * (17 * MIB), "docProps/core.xml": b"<broken"}
    assert columns_in(write(tmp_path / "b.xlsx", parts)) == ["text", "label"]


def test_parts_in_another_compression(tmp_path: Path) -> None:
    file = write(tmp_path / "b.xlsx", book(tmp_path / "a.xlsx"), zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="has an unsupported compression method"):
        columns_in(file)


def test_a_row_without_an_end(tmp_path: Path) -> None:
    long = f'<row r="3"><c t="inlineStr"><is><t>{"a" * (17 * MIB)}'
    file = write(tmp_path / "b.xlsx", with_rows(book(tmp_path / "a.xlsx"), long))
    with pytest.raises(DataError, match="has a row that is too long: 16 MiB of XML; save the sheet as csv"):
        list(rows_of(file, COLUMNS))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("rows", ["<row>" + "<c/>" * MIB, "<a/>" * MIB], ids=["cells", "elements"])
def test_many_elements_in_a_row_or_between_rows(tmp_path: Path, rows: str) -> None:
    """An element takes far more memory than its four bytes. The limit is a sixteenth of the real one."""
    write(tmp_path / "b.xlsx", with_rows(book(tmp_path / "a.xlsx"), rows))
    said, grown = read_apart(tmp_path / "b.xlsx", "raypath.components.data.formats.excel_book.ROW_BYTES=1048576")
    assert said.startswith("DataError b.xlsx has a row that is too long: 1 MiB of XML; save the sheet as csv")
    assert grown < 120


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_texts_that_are_all_the_same(tmp_path: Path) -> None:
    """They are in a part of any name, and were kept one by one."""
    parts = book(tmp_path / "a.xlsx")
    space, kind = (
        "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
        "application/vnd.openxmlformats-officedocument",
    )
    part = f'<Override PartName="/xl/other.xml" ContentType="{kind}.spreadsheetml.sharedStrings+xml"/></Types>'
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace(b"</Types>", part.encode())
    table = b"<si><t>%s</t></si>" % (b"tea and cakes" * 160) * 40_000
    parts["xl/other.xml"] = f'<sst xmlns="{space}">'.encode() + table + b"</sst>"
    shared = '<row r="9"><c t="s"><v>7</v></c><c t="s"><v>8</v></c></row>'
    write(tmp_path / "b.xlsx", with_rows(parts, shared))
    said, grown = read_apart(tmp_path / "b.xlsx")
    assert said == "2 rows "
    assert grown < 80
