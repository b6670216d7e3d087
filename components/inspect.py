"""Inspect the rows: a report on labels, texts, duplicates, leaks and other faults, as a page and as JSON.

In a run it is a branch of its own: no step waits for it, and an error in it is reported and does not end the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import PAGE, DataReport, Dataset, Settings, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.files import is_disk_full
from raypath.components.core.params import NonNegative, Params
from raypath.components.inspection.params import InspectParams
from raypath.components.read import ReadParams
from raypath.components.split import SplitParams

if TYPE_CHECKING:
    from raypath.components.core.columns import Column
    from raypath.components.data.streaming.row_files import RowFiles
    from raypath.components.inspection.rows import Part

COLUMNS = ".columns"
"""Folder in the step's scratch; hidden folders of scratch are not copied to the store."""
REPORTED = ("leaks",)
"""Errors of which `split` warns already."""


class DataInspection(Params):
    """Settings of `raypath inspect`."""

    read: ReadParams = ReadParams(uri="")
    split: SplitParams = SplitParams()
    inspect: InspectParams = InspectParams()
    seed: NonNegative = 0
    """Seed of the random generators."""


@component(version=1, by_shard=True)
def inspect(ctx: Context, splits: Splits, params: InspectParams, settings: Settings | None = None) -> DataReport:
    """Write report.html, report.json and rows.csv; log the first two to MLflow.

    settings: base and maximum length that `configure` chose.
    Texts are in them only with `inspect.texts`. An unexpected error other than a full disk is logged as a warning, and
    the report is empty.
    """
    if settings is not None:
        params = params.using(str(settings.values["base"]), int(settings.values["max_length"] or 0))
    try:
        return _report(ctx, splits, params)
    except Exception as error:
        if is_disk_full(error):  # once there is room, the step runs again
            raise
        ctx.log.warning("the data report was not written (%s); the run is not affected", type(error).__name__)
        ctx.log.debug("the data report was not written", exc_info=True)
        return DataReport(rows=0, metrics={})
    finally:
        shutil.rmtree(ctx.scratch / COLUMNS, ignore_errors=True)


def _report(ctx: Context, splits: Splits, params: InspectParams) -> DataReport:
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.shard_files import shard_files
    from raypath.components.data.streaming.stream import is_small
    from raypath.components.data.tokenization.conversation_rows import conversation_column
    from raypath.components.inspection.build import build_report
    from raypath.components.inspection.page.render import write_report
    from raypath.components.inspection.report import Severity

    if not params.enabled:
        return DataReport(rows=0, metrics={})
    named = [("train", splits.train), ("valid", splits.valid), ("test", splits.test)]
    progress = ProgressReporter(ctx, sum(data.rows for _, data in named))
    small = is_small([shard for _, data in named for shard in shard_files(data.uri)])
    parts = [part for name, data in named for part in _parts(name, data, whole=small)]
    report, found, rows = build_report(
        splits.train.source,
        parts,
        params,
        ctx.scratch / COLUMNS,
        progress=progress.add,
        seed=ctx.seed,
        tasks=None if small else ctx,
        conversations=conversation_column(splits.train.columns) is not None,
    )
    progress.finish()
    write_report(ctx.out, report, found.places, rows)
    for name in (PAGE, "report.json"):
        ctx.track.artifact(ctx.out / name, "data")
    counts = {f"{severity}s": float(report.count(severity)) for severity in Severity}
    for each in report.findings:
        if each.severity is Severity.ERROR and each.kind not in REPORTED:
            ctx.log.warning("%s", each.text)
    return DataReport(rows=report.rows, metrics=counts)


def _parts(name: str, data: Dataset, whole: bool) -> Iterator[Part]:
    """Yield the rows of a split as one part, or as one a file, for tasks."""
    from raypath.components.data.streaming.row_files import dataset_files
    from raypath.components.inspection.rows import Part

    files, first = dataset_files(data.uri), 0
    for count in [files.rows] if whole else [rows for _, rows in files.files]:
        yield Part(name, _Rows(files, data.columns, first, count), name, first, files.portable)
        first += count


@dataclass(frozen=True)
class _Rows:
    """Columns `text`, of all inputs, and `label` of a range of rows, read when they are iterated."""

    files: RowFiles
    columns: tuple[Column, ...]
    first: int
    count: int

    def __iter__(self) -> Iterator[Any]:
        from raypath.components.inspection.rows import with_text
        from raypath.components.inspection.texts.conversations import COLUMN

        for table in self.files.read(self.first, self.count):
            table = with_text(table, self.columns)
            yield table.select([name for name in table.column_names if name in ("text", "label", COLUMN)])
