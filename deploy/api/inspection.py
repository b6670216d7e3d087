"""Inspect data files before a run: the data report, and the settings that mend what it finds."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import PAGE
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.files import write_atomically
from raypath.components.core.params import flatten
from raypath.components.inspect import COLUMNS, DataInspection
from raypath.components.inspection.report import InspectionReport, Value
from raypath.deploy.api.project import private_process

if TYPE_CHECKING:
    from raypath.components.data.columns.conversations.forms import Composition
    from raypath.components.data.file_shard import FileShard
    from raypath.components.inspection.columns.guess import Guess, Profile
    from raypath.components.inspection.report import Column, Finding
    from raypath.components.inspection.rows import Part
    from raypath.components.read import ReadParams


def inspect(
    data: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    apply: str | Path | None = None,
) -> InspectionReport:
    """Inspect files as they are: columns, labels, texts, duplicates, leaks, personal data. Nothing is run or stored.

    Args:
        data: A file, a folder, a glob or another value of read.uri.
        settings: Nested or dotted keys of `read`, `split.test`, `inspect` and `seed`; columns that are not among them
            are guessed, and conversations are recognised by their columns and values.
        out: Folder for report.html, report.json and rows.csv; None writes none.
        apply: YAML file for the settings that mend what was found, for `raypath run WORKFLOW -f`.

    Returns:
        The report.

    Raises:
        DataError: Files that cannot be read, or without a column of texts.
        ParamsError: An unknown setting, or a file that exists.

    Example:
        report = raypath.inspect("mine.csv", {"read.text": "body"}, out="report", apply="params.yaml")
        print([finding.text for finding in report.findings])
    """
    target = Path(apply) if apply else None
    if target and os.path.lexists(target):
        raise ParamsError(f"{target} exists", fix="remove it, or name another file with --apply")
    with private_process():
        report = _inspect(str(data), dict(flatten(settings or {})), Path(out) if out else None)
        if target:
            _write_settings(target, report.settings())
    return report


def _inspect(uri: str, settings: dict[str, Any], out: Path | None) -> InspectionReport:
    from raypath.components.inspection.build import build_report
    from raypath.components.inspection.columns.conversations import with_parts
    from raypath.components.inspection.findings.columns import missing_values
    from raypath.components.inspection.page.render import write_report
    from raypath.components.inspection.report import by_severity

    params = DataInspection().override({**settings, "read.uri": uri, "read.nulls": "drop"})
    with tempfile.TemporaryDirectory(prefix="raypath-") as folder:
        ctx = Context(step="inspect", out=Path(folder), scratch=Path(folder), seed=params.seed)
        profiles, guesses = _guess(ctx, params.read)
        composed = _composed(params.read, profiles, guesses, settings)
        if composed:
            guesses = with_parts(guesses, profiles, composed)
        read = _with_guesses(params.read, profiles, guesses, settings, composed)
        inspected = params.inspect.of_files(composed is not None, "inspect.max_length" in settings)
        parts = list(_parts(ctx, read))
        report, found, rows = build_report(
            uri,
            parts,
            inspected,
            Path(folder) / COLUMNS,
            test_share=params.split.test,
            columns=_columns(profiles, guesses, read, composed),
            seed=params.seed,
            conversations=composed is not None,
        )
        optional = composed.optional if composed else ()
        empty = missing_values([each for each in profiles.values() if each.name not in optional], _used(read, composed))
        more = [*empty, _chosen(read, settings, composed)]
        report = report.model_copy(update={"findings": by_severity([*report.findings, *more])})
        if out:
            out.mkdir(parents=True, exist_ok=True)
            write_report(out, report, found.places, rows)
    return report


def page_of(out: Path) -> Path:
    """Return the page in the folder of a report."""
    return out / PAGE


def _guess(ctx: Context, read: ReadParams) -> tuple[dict[str, Profile], list[Guess]]:
    from raypath.components.data.sources.files import find
    from raypath.components.inspection.columns.guess import guess_columns, profile
    from raypath.components.inspection.columns.raw import raw_tables
    from raypath.components.read import DOWNLOADS

    uris = [uri for uri in (read.uri, read.valid, read.test) if uri]
    quiet = logging.getLogger("raypath.inspect.guess")
    files = [file for uri in uris for file in find(uri, quiet, ctx.scratch / DOWNLOADS, read.file_settings)]
    profiles = profile(table for file in files for table in raw_tables(file))
    return {each.name: each for each in profiles}, guess_columns(profiles)


def _composed(
    read: ReadParams, profiles: Mapping[str, Profile], guesses: list[Guess], settings: Mapping[str, Any]
) -> Composition | None:
    """Return the columns of conversations, recognised unless settings name columns of texts; None for other data."""
    from raypath.components.data.columns.conversations.forms import compose, find_form
    from raypath.components.inspection.columns.conversations import recognise

    names = tuple(profiles)
    form: str = read.conversations or ""
    if not form and not {"read.text", "read.inputs", "read.conversations"} & set(settings):
        form = recognise(guesses, profiles)
    form = (find_form(names) or "text") if form == "auto" else form
    return compose(form, names, read.inputs, read.text if read.text in names else "") if form else None


def _with_guesses(
    read: ReadParams,
    profiles: Mapping[str, Profile],
    guesses: list[Guess],
    settings: Mapping[str, Any],
    composed: Composition | None = None,
) -> ReadParams:
    """Set what the caller has not set: the columns, or the form of conversations that they compose.

    Raises DataError without a column of texts.
    """
    from raypath.components.inspection.columns.conversations import good_label

    roles = {guess.role: guess for guess in guesses if guess.role}
    changes: dict[str, Any] = {}
    if "read.split" not in settings and "split" in roles:
        changes["split"] = roles["split"].name
    if composed:
        changes["conversations"] = composed.form
        if "read.label" not in settings:
            changes["label"] = good_label(guesses, composed) or None
        return read.override(changes)
    if "read.text" not in settings and not read.inputs:
        if "text" not in roles:
            names = ", ".join(guess.name for guess in guesses[:8])
            raise DataError(f"no column looks like a text; there is {names}", fix="set -s read.text=COLUMN")
        changes["text"] = roles["text"].name
    if "read.label" not in settings:
        changes["label"] = roles["label"].name if "label" in roles else None
    label = changes.get("label", read.label)
    if "read.kind" not in settings:
        kind = next((guess.kind for guess in guesses if guess.name == label), "")
        changes["kind"] = kind if kind in ("set", "number") else "class"
    if "read.decimal" not in settings and label and label in profiles and profiles[label].has_comma:
        changes["decimal"] = ","
    return read.override(changes)


def _parts(ctx: Context, read: ReadParams) -> Iterator[Part]:
    from raypath.components.inspection.rows import Part
    from raypath.components.read import shards_of

    shards = shards_of(ctx, read)
    names = [shard.file.name for shard in shards]
    for shard, name in zip(shards, names, strict=True):
        # Files of a sample, or of several folders, may have the same name.
        source = f"{name} {shard.file.split}".strip() if names.count(name) > 1 else name
        yield Part(source, _Tables(replace(shard, drop=True)), shard.file.split)


class _Tables:
    """Tables of a shard, read when they are iterated."""

    def __init__(self, shard: FileShard) -> None:
        self.shard = shard

    def __iter__(self) -> Iterator[Any]:
        from raypath.components.inspection.rows import with_text

        return (with_text(table, self.shard.columns.inputs) for table in self.shard())


def _columns(
    profiles: Mapping[str, Profile], guesses: list[Guess], read: ReadParams, composed: Composition | None = None
) -> list[Column]:
    """Describe the columns, with the roles that are used."""
    from raypath.components.inspection.report import Column

    inputs = {name: part for part, name in composed.parts} if composed else {}
    inputs = inputs or {column.name: "text" for column in read.input_columns()}
    roles = {**inputs, **dict.fromkeys(read.labels, "label")}
    roles |= {name: role for name, role in ((read.split, "split"), (read.group, "group")) if name}
    return [
        Column(
            name=profile.name,
            kind=guess.kind,
            role=roles.get(profile.name, ""),
            why=guess.why,
            missing=profile.missing,
            distinct=profile.distinct,
        )
        for profile, guess in zip(profiles.values(), guesses, strict=True)
    ]


def _used(read: ReadParams, composed: Composition | None) -> tuple[str, ...]:
    """Return the columns that no row may lack."""
    inputs: tuple[str, ...] = () if read.inputs else (read.text,)
    if composed:
        inputs = tuple(name for _, name in composed.parts if name not in composed.optional)
    return (*inputs, *read.labels)


def _chosen(read: ReadParams, settings: Mapping[str, Any], composed: Composition | None = None) -> Finding:
    """The columns that were read, with the settings that make a run read them."""
    from raypath.components.data.columns.conversations.forms import FORMS
    from raypath.components.inspection.report import Finding, Severity

    chosen: dict[str, Value] = {"read.uri": read.uri}
    if not (composed or read.inputs):
        chosen["read.text"] = read.text
    chosen |= {"read.label": read.label}
    if read.kind != "class":
        chosen["read.kind"] = read.kind
    if read.decimal != ".":
        chosen["read.decimal"] = read.decimal
    if read.split != "split":
        chosen["read.split"] = read.split
    chosen |= {key: value for key, value in settings.items() if key.startswith("read.")}
    if composed:
        chosen["read.conversations"] = composed.form
        names = ", ".join(name for _, name in composed.parts)
        text = f"recognised {FORMS[composed.form].described} (read.conversations={composed.form}) in {names}"
        text += f"; column {read.label} marks responses as good or bad" if read.label else ""
    else:
        guessed = "" if "read.text" in settings or read.inputs else ", guessed"
        names = ", ".join(column.name for column in read.input_columns())
        label = f"column {read.label}" if read.label else "missing (read.label=COLUMN names it)"
        text = f"the text is column {names}{guessed}; the label is {label}"
    return Finding(kind="columns", severity=Severity.NOTE, text=text, count=1 + len(read.labels), settings=chosen)


def _write_settings(path: Path, settings: Mapping[str, Value]) -> None:
    """Write settings as nested YAML. Raises ParamsError for a path that cannot be written."""
    import yaml

    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *groups, leaf = key.split(".")
        here = tree
        for group in groups:
            here = here.setdefault(group, {})
        here[leaf] = value
    try:
        write_atomically(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise ParamsError(f"cannot write {path}: {error.strerror}", fix="name another file with --apply") from None
