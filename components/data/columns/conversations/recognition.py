"""Recognise the form of conversations by the columns of the user's files."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from raypath.components.core.errors import DataError
from raypath.components.data.columns.conversations.forms import FORMS, Composition, compose, find_form
from raypath.components.data.formats.readers import columns_in
from raypath.components.data.sources.data_file import DataFile


def find_composition(
    files: Sequence[DataFile], form: str, given: Sequence[str], text: str, log: logging.Logger
) -> Composition:
    """Return the columns of which each conversation is composed, and log the form that was recognised.

    form: a name in FORMS, or "auto". given: the user's names of the columns, in the order of the form's parts. text:
    name of the column for texts. Raises DataError for files of no form.
    """
    names = list(dict.fromkeys(name for file in files for name in _names(file, form)))
    chosen = form if form != "auto" else find_form(names) or ("text" if text in names else "")
    if not chosen:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        what = f"{files[0].name} has no columns of conversations; it has {listed or 'none'}"
        fix = "name the columns: -s read.conversations=prompt -s read.inputs=PROMPT,RESPONSE (or messages, alpaca, "
        fix += "text, preference with their columns)"
        raise DataError(what, fix=fix)
    composition = compose(chosen, names, given, text if text in names else "")
    columns = ", ".join(name for _, name in composition.parts)
    if form == "auto":
        log.info("recognised %s (read.conversations=%s) in %s", FORMS[chosen].described, chosen, columns)
    return composition


def _names(file: DataFile, form: str) -> list[str]:
    """Return the columns of a file; keys that only some objects of a JSON file have are among them."""
    names = columns_in(file)
    names += [head for head in dict.fromkeys(name.partition(".")[0] for name in names) if head not in names]
    found = find_form(names) if form == "auto" else form
    if file.format != "json" or not found:
        return names
    optional = {name for usual in FORMS[found].optional.values() for name in usual}
    return [*names, *columns_in(file, optional | set(names))] if optional - set(names) else names
