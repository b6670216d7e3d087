"""Facts about the rows that a model was made of: columns, splits, files and the data report; no row's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePath

from raypath.components.cards.facts import public_name
from raypath.components.core.artifacts import Dataset, Splits
from raypath.components.core.columns import Column, Redaction
from raypath.components.core.errors import ParamsError
from raypath.components.core.files import file_digest
from raypath.components.inspection.report import InspectionReport


@dataclass(frozen=True)
class Statement:
    """Statement of a person about data; what is empty was not said."""

    license: str = ""
    """SPDX name, such as CC-BY-4.0."""
    about: str = ""
    """Where the rows come from, and what they may be used for."""
    contact: str = ""
    """Whom to ask about the data."""


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of a split."""

    name: str
    """Path within the folder of the splits, such as `train/00000.parquet`."""
    sha256: str
    bytes: int
    types: Mapping[str, str]
    """Arrow type of each column, by stored name."""


@dataclass(frozen=True)
class DataFacts:
    """Rows of one source as a workflow has divided them."""

    name: str
    source: str
    """URI, or the name of a file without its folders."""
    made: date
    rows: int
    columns: tuple[Column, ...]
    splits: Mapping[str, int]
    """Rows of train, valid and test."""
    presplit: bool
    """True if the data prescribes the splits."""
    files: tuple[DataFile, ...]
    """Empty if the splits are no longer in the store of this machine."""
    redaction: Redaction | None
    report: InspectionReport | None
    """None if `inspect` was off, or its report is gone."""
    statement: Statement

    def names(self) -> dict[str, str]:
        """Return the name in the data of each stored column."""
        return {each.stored: each.name for each in self.columns}


def data_facts(
    read: Dataset, splits: Splits, made: date, report: InspectionReport | None, statement: Statement
) -> DataFacts:
    """Return the facts of rows that were read and split. read and splits have URIs of folders on this machine."""
    source = public_name(read.source)
    parts = {name: part for name, part in splits.nested() if isinstance(part, Dataset)}
    return DataFacts(
        name=PurePath(source.rpartition("/")[2]).stem or "data",
        source=source,
        made=made,
        rows=read.rows,
        columns=read.columns or (Column(name="text"),),
        splits={name: part.rows for name, part in parts.items()},
        presplit=read.presplit,
        files=tuple(found for name, part in parts.items() for found in _files(name, Path(part.uri))),
        redaction=splits.train.redaction,
        report=report,
        statement=statement,
    )


def check_license(name: str) -> None:
    """Raise ParamsError for a license that is no SPDX name."""
    if name and not all(each.isalnum() or each in ".-+" for each in name):
        raise ParamsError(f"license {name!r}", fix="give its SPDX name, such as CC-BY-4.0 or Apache-2.0")


def _files(split: str, folder: Path) -> list[DataFile]:
    import pyarrow.parquet as pq

    return [
        DataFile(
            f"{split}/{path.name}",
            file_digest(path),
            path.stat().st_size,
            {field.name: str(field.type) for field in pq.read_schema(path)},
        )
        for path in sorted(folder.glob("*.parquet"))
    ]
