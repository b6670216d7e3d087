"""Collect the statistics of parts with Ray Data, a task a part, and join them in the order of the parts."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from raypath.components.core.context import Context
from raypath.components.core.labels import LabelKind
from raypath.components.data.streaming.ray_tasks import run_tasks
from raypath.components.inspection.collection import column_files
from raypath.components.inspection.collection.collector import Collector, CountTokens
from raypath.components.inspection.collection.column_files import ColumnFiles
from raypath.components.inspection.collection.sample import Sample, joined
from raypath.components.inspection.rows import Part, Places
from raypath.components.inspection.statistics import Statistics

_SAMPLE = "sample.npz"


class PartSummary(BaseModel):
    """Statistics of a part that are no columns."""

    model_config = ConfigDict(frozen=True)

    rows: int
    label_kind: LabelKind = Field(strict=False)
    classes: list[str]
    sets: list[tuple[str, ...]]
    limit: float
    names: dict[int, str]


@dataclass(frozen=True)
class PartCollector:
    """Write the columns of one part to a folder; called by Ray Data with the part's number.

    sources: number of the source of each part.
    """

    parts: Sequence[Part]
    sources: Sequence[int]
    folder: Path
    count_tokens: CountTokens | None
    keep_words: bool
    seed: int

    def __call__(self, item: dict[str, Any]) -> tuple[str, str]:
        number, target = int(item["number"]), self.path(item["number"])
        part = self.parts[number]
        temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        with closing(Collector(temporary, self.count_tokens, self.keep_words, self.seed)) as collector:
            for table in part.tables:
                collector.add(table, self.sources[number], part.first + collector.rows, part.split)
        made = collector.statistics(Places())
        sample = made.sample
        np.savez(temporary / _SAMPLE, rows=sample.rows, draws=sample.draws, of=sample.of, words=sample.words)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        summary = PartSummary(
            rows=made.rows,
            label_kind=made.label_kind,
            classes=made.classes,
            sets=made.sets,
            limit=sample.limit,
            names=sample.names,
        )
        return str(number), summary.model_dump_json()

    def path(self, number: int) -> Path:
        """Folder of a part."""
        return self.folder / f"{number:05d}"

    def sample(self, number: int, summary: PartSummary) -> Sample:
        """Read the sample of a part."""
        with np.load(self.path(number) / _SAMPLE, allow_pickle=False) as found:
            return Sample(found["rows"], found["draws"], found["of"], found["words"], summary.limit, summary.names)


def collect_in_tasks(
    parts: Sequence[Part],
    folder: Path,
    count_tokens: CountTokens | None = None,
    keep_words: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
    seed: int = 0,
    *,
    ctx: Context,
) -> Statistics:
    """Read all parts with Ray Data; returns what `collect` does. Parts are pickled to the workers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    sources = np.cumsum([not part.first for part in parts]).tolist()
    collector = PartCollector(tuple(parts), sources, folder, count_tokens, keep_words, seed)
    found: dict[int, PartSummary] = {}
    for number, made in run_tasks(collector, [{"number": n} for n in range(len(parts))], ctx):
        found[int(number)] = PartSummary.model_validate_json(made)
        progress(found[int(number)].rows)
    return join(collector, [found[n] for n in range(len(parts))])


def join(collector: PartCollector, summaries: Sequence[PartSummary]) -> Statistics:
    """Join the columns and samples of all parts."""
    places, samples, rows = Places(), [], 0
    classes: dict[str, int] = {}
    sets: dict[tuple[str, ...], int] = {}
    kind = next((each.label_kind for each in summaries if each.label_kind is not LabelKind.NONE), LabelKind.NONE)
    with closing(ColumnFiles(collector.folder / "all")) as files:
        for number, summary in enumerate(summaries):
            places.begin(collector.parts[number], rows)
            new_classes = _renumbered(summary.classes, classes)
            new_sets = _renumbered([tuple(each) for each in summary.sets], sets)
            for name in column_files.TYPES:
                values = column_files.read(collector.path(number), name)
                if name == "codes":
                    values = np.array([*(new_sets if kind is LabelKind.SET else new_classes), -1], np.int32)[values]
                if len(values):
                    files.append(name, values)
            samples.append(collector.sample(number, summary).moved(rows))
            rows += summary.rows
            shutil.rmtree(collector.path(number))
    return Statistics(
        files=files,
        rows=rows,
        places=places,
        label_kind=kind,
        classes=list(classes),
        sets=list(sets),
        sample=joined(samples),
    )


def _renumbered(names: Sequence[Any], numbers: dict[Any, int]) -> list[int]:
    """Return the number of each name among the names of all parts; new ones are added."""
    return [numbers.setdefault(name, len(numbers)) for name in names]
