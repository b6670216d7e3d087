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

from raypath.components.core.context import Context, ShardStorage
from raypath.components.core.labels import LabelKind
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.ray_tasks import run_tasks
from raypath.components.data.streaming.shard_storage import Origin, describe, fetched, upload
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
    uploaded: WrittenShard | None = None
    """Archive with the columns and the sample, where the task uploaded it."""


@dataclass(frozen=True)
class PartCollector:
    """Write the columns of one part to a folder; called by Ray Data with the part's number.

    sources: number of the source of each part. storage: object storage to which parts are uploaded.
    """

    parts: Sequence[Part]
    sources: Sequence[int]
    folder: Path
    count_tokens: CountTokens | None
    keep_words: bool
    seed: int
    storage: ShardStorage | None = None

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
        archive = self._upload(number, temporary)
        if archive is None:
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
        summary = PartSummary(
            rows=made.rows,
            label_kind=made.label_kind,
            classes=made.classes,
            sets=made.sets,
            limit=sample.limit,
            names=sample.names,
            uploaded=archive,
        )
        return str(number), summary.model_dump_json()

    def _upload(self, number: int, made: Path) -> WrittenShard | None:
        """Upload the folder of a part, which is removed; None where nodes share it."""
        if self.storage is None:
            return None
        archive = Path(shutil.make_archive(str(made), "tar", made))
        shard = describe(archive, f"{number:05d}.tar")
        upload(self.storage, archive, shard)
        shutil.rmtree(made)
        return shard

    def fetch(self, number: int, summary: PartSummary) -> Path:
        """Return the folder of a part, fetched if another node may have written it."""
        folder = self.path(number)
        if summary.uploaded is not None and self.storage is not None:
            with fetched(Origin.of(self.storage), summary.uploaded) as archive:
                shutil.unpack_archive(archive, folder, "tar", filter="data")
        return folder

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
    count_tokens: CountTokens | None,
    keep_words: bool,
    progress: Callable[[int], None],
    seed: int,
    *,
    ctx: Context,
) -> Statistics:
    """Read all parts with Ray Data; returns what `collect` does. Parts are pickled to the workers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    sources = np.cumsum([not part.first for part in parts]).tolist()
    portable = ctx.part_storage is not None and all(part.portable for part in parts)
    storage = ctx.part_storage if portable else None
    collector = PartCollector(tuple(parts), sources, folder, count_tokens, keep_words, seed, storage)
    found: dict[int, PartSummary] = {}
    for number, made in run_tasks(collector, [{"number": n} for n in range(len(parts))], ctx, anywhere=portable):
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
            folder = collector.fetch(number, summary)
            new_classes = _renumbered(summary.classes, classes)
            new_sets = _renumbered([tuple(each) for each in summary.sets], sets)
            for name in column_files.TYPES:
                values = column_files.read(folder, name)
                if name == "codes":
                    values = np.array([*(new_sets if kind is LabelKind.SET else new_classes), -1], np.int32)[values]
                if len(values):
                    files.append(name, values)
            samples.append(collector.sample(number, summary).moved(rows))
            rows += summary.rows
            shutil.rmtree(folder)
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
