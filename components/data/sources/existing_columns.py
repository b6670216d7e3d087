"""Columns of the user's files: those that the settings name must be in every file."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import replace

from raypath.components.core.columns import INPUT_PREFIX
from raypath.components.core.errors import DataError
from raypath.components.data.columns.conversations.forms import FORMS, PART, find_form
from raypath.components.data.columns.schema import Columns
from raypath.components.data.formats.readers import columns_in
from raypath.components.data.sources.data_file import DataFile

_SETTINGS = {PART + "source": "text", PART + "target": "label"}
"""Settings that name the parts of a row of two texts."""


def existing_columns(files: list[DataFile], columns: Columns) -> Columns:
    """Check that every file has the columns; the split column is left out if no file has it."""
    names_by_file = {file: columns_in(file, set(columns.selected().values())) for file in files}
    if len(columns.labels) > 1:
        # A name may contain a comma itself.
        joined = [name for name in names_by_file[files[0]] if _parts(name) == list(columns.labels)]
        columns = replace(columns, labels=(joined[0],)) if joined else columns
    if columns.split and not any(columns.split in names for names in names_by_file.values()):
        columns = replace(columns, split="")
    for file, names in names_by_file.items():
        absent = columns.composed.optional if columns.composed and file.format == "json" else ()
        for canonical, name in columns.selected().items():
            if names.count(name) != 1 and name not in absent:
                raise _form_error(file, names, columns, name, len(files)) or _column_error(file, names, canonical, name)
    return columns


def _form_error(file: DataFile, names: list[str], columns: Columns, name: str, files: int) -> DataError | None:
    """Return the error for a file of conversations in another form than that of the first file, or the one set.

    None for other files, and for columns whose names are set.
    """
    form, wanted = find_form(names), columns.composed.form if columns.composed else ""
    if not wanted or form in ("", wanted) or not any(name in usual for usual in FORMS[wanted].required.values()):
        return None
    what = f"{file.name} has {FORMS[form].described}, not {FORMS[wanted].described}"
    fix = "give files of one form" if files > 1 else f"set -s read.conversations={form}"
    return DataError(what, fix=fix)


def _parts(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _column_error(file: DataFile, names: list[str], canonical: str, name: str) -> DataError:
    if name in names:
        return DataError(f"{file.name} has {names.count(name)} columns called {name}", fix="rename all but one")
    setting = (
        _SETTINGS.get(canonical, "") or "inputs"
        if canonical.startswith((INPUT_PREFIX, PART))
        else canonical.split(".")[0]
    )
    if any(len(other) > 64 for other in names):
        # The first row is probably not a header but data, which must not be shown.
        return DataError(f"{file.name} has no header row; wanted a column {name}", fix="add a line of column names")
    near = difflib.get_close_matches(name, names, n=len(names) + 1, cutoff=0.0)
    rest = [other for other in names if other not in near]
    existing = ", ".join([*near, *rest][:8]) + (", ..." if len(names) > 8 else "")
    same = next((other for other in names if other.strip().lower() == name.strip().lower()), None)
    fix = f"set -s read.{setting}={shlex.quote(same) if same else 'COLUMN'}"
    return DataError(f"{file.name} has no column {name}; it has {existing or 'none'}", fix=fix)
