"""Facts about the labels of rows that were read, and rows without inputs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.schema import Columns
from raypath.components.data.labels.classes import ClassCollector, SetCollector
from raypath.components.data.rendering import without_inputs
from raypath.components.data.wording import plural, verb


def label_facts(
    log: logging.Logger, columns: Columns, labels: ClassCollector | SetCollector | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of the Dataset that describe its labels, and the labels to rewrite: as read to normalized."""
    if labels is None:
        return ({"label_kind": LabelKind.NUMBER, "labels": columns.labels} if columns.labels else {}), {}
    if isinstance(labels, SetCollector):
        if labels.empty:
            have, their = verb(labels.empty, "has", "have"), verb(labels.empty, "its", "their")
            log.warning("%s %s no class: %s set is empty", plural(labels.empty, "row"), have, their)
        return {"label_kind": LabelKind.SET}, {}
    kind, changes = labels.resolve()
    return {"label_kind": kind}, changes


def complete_rows(table: pa.Table, labels: ClassCollector | SetCollector | None, inputs: Sequence[str]) -> pa.Table:
    """Drop the rows marked as incomplete, and collect the labels of the others. inputs: stored names."""
    incomplete = without_inputs(table, inputs)
    if pc.any(incomplete).as_py():
        table = table.filter(pc.invert(incomplete))
    if labels is not None:
        labels.add(table)
    return table
