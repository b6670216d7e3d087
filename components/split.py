"""Split rows into train, valid and test: as the data prescribes, else by time or at random, stratified by class.

Memory grows by about 30 bytes per row and 12 per class of a set; texts are streamed from file to file, for large data
by Ray Data, each task a file.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from raypath.components.core.artifacts import Dataset, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import Fraction, Params
from raypath.components.data.wording import plural, verb

if TYPE_CHECKING:
    from raypath.components.core.arrays import Array
    from raypath.components.data.splits.label_statistics import LabelStatistics
    from raypath.components.data.streaming.progress import ProgressReporter


class SplitParams(Params):
    """Sizes of the splits, and rules for the rows they share."""

    valid: Fraction = 0.1
    """Share of the rows for validation, 0 to 1; ignored if the data prescribes these rows."""
    test: Fraction = 0.1
    """Share of the rows for the test, 0 to 1; ignored if the data prescribes these rows."""
    stratify: bool = True
    """Keep the proportions of classes in every split: for sets of the rarest class of each row, for numbers of ten
    quantile bins."""
    min_rows: int = 0
    """Drop classes with fewer rows than this; of sets the class is dropped and not the row. With 0 no class is dropped:
    a class with one row is then an error, and in sets goes to train."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Rows of train whose text also occurs in valid or test: keep them with a warning, or drop them from train."""

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError("valid and test together leave nothing for train")
        return self


@component(version=1, by_shard=True)
def split(ctx: Context, data: Dataset, params: SplitParams) -> Splits:
    """Assign every row to one split, in the order of the data.

    Prescribed splits are kept; a split without prescribed rows is taken from train. With the column `time` the latest
    rows become test, those before them valid, and nothing is stratified. With the column `group` whole groups move
    together, and shares and proportions are approximate. Rows of a set move to train if it lacks a class.
    Raises DataError for one or over 1,000 classes, a class with one row, a class that train lacks, or an empty train
    split.
    """
    from raypath.components.data.splits.assign import SPLITS, TEST, TRAIN, VALID, assign
    from raypath.components.data.splits.label_statistics import collect_statistics
    from raypath.components.data.splits.stratify import ensure_classes_in_train, strata
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.shard_files import shard_files
    from raypath.components.data.streaming.stream import is_small

    source, progress = Path(data.uri), ProgressReporter(ctx, 2 * data.rows)
    shares = {VALID: params.valid, TEST: params.test}
    statistics = collect_statistics(source, progress, ctx, data.columns)
    statistics, given = _drop_rare_classes(ctx, statistics, params.min_rows)
    codes = strata(statistics, given, shares) if params.stratify else statistics.codes * 0
    splits = assign(codes, given, statistics.groups, shares, ctx.seed, statistics.times)
    splits = ensure_classes_in_train(statistics, given, splits)
    splits = _handle_duplicates(ctx, statistics, splits, params.duplicates)
    _check(ctx, statistics, splits)
    write = _write if is_small(shard_files(data.uri)) else _write_in_tasks
    write(ctx, source, splits, statistics.removed, progress)
    progress.finish()
    rows = {code: int((splits == code).sum()) for code in SPLITS}
    ctx.log.info("train %s, valid %s, test %s rows", *(f"{rows[code]:,}" for code in (TRAIN, VALID, TEST)))
    if statistics.times is not None:
        _log_periods(ctx, statistics.times, splits)
    made = {
        name: data.model_copy(update={"uri": name, "digest": "", "rows": rows[code]}) for code, name in SPLITS.items()
    }
    return Splits(train=made["train"], valid=made["valid"], test=made["test"])


def _log_periods(ctx: Context, times: Array, splits: Array) -> None:
    """Log the last time of each split."""
    from datetime import UTC, datetime, timedelta

    from raypath.components.data.splits.assign import SPLITS

    start = datetime(1970, 1, 1, tzinfo=UTC)
    for code, name in SPLITS.items():
        if (splits == code).any():
            last = start + timedelta(microseconds=int(times[splits == code].max()))
            ctx.log.info("the last row of %s is from %s", name, last.strftime("%Y-%m-%d %H:%M"))


def _drop_rare_classes(ctx: Context, statistics: LabelStatistics, min_rows: int) -> tuple[LabelStatistics, Array]:
    """Return the statistics and the prescribed splits without rare classes.

    Raises DataError for too few or too many classes.
    """
    from raypath.components.data.labels.classes import MAX_CLASSES
    from raypath.components.data.splits.assign import DROPPED

    given = statistics.given.copy()
    if not statistics.has_classes:
        return statistics, given
    counts = statistics.counts()
    rare = counts < min_rows
    if rare.any():
        if statistics.members is None:
            given[rare[statistics.codes]] = DROPPED
        else:
            statistics = statistics.without_classes(rare)
        ctx.log.warning("dropped %s with fewer than %d rows", plural(int(rare.sum()), "class", "classes"), min_rows)
    kept = [(label, int(n)) for label, n, drop in zip(statistics.classes, counts, rare, strict=True) if not drop]
    if not 2 <= len(kept) <= MAX_CLASSES:
        names = f", {kept[0][0]}" if len(kept) == 1 else ""
        what = f"got {len(kept):,} class{'' if len(kept) == 1 else 'es'}{names}; wanted 2 to {MAX_CLASSES:,}"
        raise DataError(what, fix="name the label column with -s read.label=, or lower split.min_rows")
    single = [label for label, n in kept if n == 1]
    if single and statistics.members is None:
        more = f" and {len(single) - 3} others" if len(single) > 3 else ""
        what = f"class {', '.join(sorted(single)[:3])}{more} has 1 row; wanted at least 2 per class"
        raise DataError(what, fix="merge it into another class, or drop it with -s split.min_rows=2")
    return statistics, given


def _handle_duplicates(ctx: Context, statistics: LabelStatistics, splits: Array, duplicates: str) -> Array:
    """Count the rows of train whose text is also in valid or test; drop them from train for duplicates=drop."""
    import numpy as np

    from raypath.components.data.splits.assign import DROPPED, TEST, TRAIN, VALID
    from raypath.components.data.splits.label_statistics import contains

    held_out = (splits == VALID) | (splits == TEST)
    leaks = (splits == TRAIN) & contains(statistics.texts[held_out], statistics.texts)
    count = int(leaks.sum())
    if count and duplicates == "drop":
        ctx.log.warning("dropped %s from train: the same text is in valid or test", plural(count, "row"))
        return np.where(leaks, np.int8(DROPPED), splits)
    if count:
        ctx.log.warning(
            "%s of train %s a text that is also in valid or test, which inflates the metrics; "
            "-s split.duplicates=drop drops %s",
            plural(count, "row"),
            verb(count, "has", "have"),
            verb(count, "it", "them"),
        )
    return splits


def _check(ctx: Context, statistics: LabelStatistics, splits: Array) -> None:
    """Require rows in train and every class of valid and test; warn of groups that cross prescribed splits."""
    import numpy as np

    from raypath.components.data.splits.assign import SPLITS, TEST, TRAIN, VALID

    if not (splits == TRAIN).any():
        raise DataError("no row is left for train", fix="lower split.valid and split.test, or correct the given splits")
    if statistics.classes:
        in_train = statistics.present(splits == TRAIN)
        for code in (VALID, TEST):
            lacking = statistics.present(splits == code) - in_train
            if lacking:
                names = ", ".join(sorted(statistics.classes[c] for c in lacking)[:5])
                what = f"train has no row of class {names}, which {SPLITS[code]} has"
                fix = "keep split.stratify=true, move rows of the class to train, or remove it"
                by_time = "lower split.valid and split.test, or remove the class"
                raise DataError(what, fix=fix if statistics.times is None else by_time)
    if statistics.groups is not None:
        held_out = statistics.groups[(splits == VALID) | (splits == TEST)]
        crossing = len(np.intersect1d(statistics.groups[splits == TRAIN], held_out))
        if crossing:
            are = verb(crossing, "is", "are")
            ctx.log.warning("%s %s both in train and in a given valid or test split", plural(crossing, "group"), are)


def _write(ctx: Context, source: Path, splits: Array, removed: frozenset[str], progress: ProgressReporter) -> None:
    """Write one folder per split, without the column `split`, and without the classes `removed` in sets."""
    from raypath.components.data.labels.sets import remove_classes
    from raypath.components.data.splits.assign import SPLITS
    from raypath.components.data.splits.label_statistics import split_mask
    from raypath.components.data.streaming.parquet import TableWriter, scan, schema_of

    schema = schema_of(source)
    if "split" in schema.names:
        schema = schema.remove(schema.get_field_index("split"))
    with ExitStack() as stack:
        writers = {code: stack.enter_context(TableWriter(ctx.out / name, schema)) for code, name in SPLITS.items()}
        row = 0
        for table in scan(source, schema.names):
            assigned = splits[row : row + table.num_rows]
            if removed:
                table = remove_classes(table, removed)
            for code, writer in writers.items():
                writer.write(table.filter(split_mask(assigned, code)))
            row += table.num_rows
            progress.add(table.num_rows)


def _write_in_tasks(
    ctx: Context, source: Path, splits: Array, removed: frozenset[str], progress: ProgressReporter
) -> None:
    """Write the same files with Ray Data, each by one task, which reads the source between its first and last row."""
    from raypath.components.data.labels.sets import remove_classes
    from raypath.components.data.splits.assign import SPLITS
    from raypath.components.data.streaming.parquet import schema_of
    from raypath.components.data.streaming.row_files import dataset_files
    from raypath.components.data.streaming.shard_tasks import Output, write_outputs

    schema, files = schema_of(source), dataset_files(source)
    if "split" in schema.names:
        schema = schema.remove(schema.get_field_index("split"))
    transform = partial(remove_classes, classes=removed) if removed else None
    outputs = {name: Output(files, schema, transform, keep=splits == code) for code, name in SPLITS.items()}
    write_outputs(ctx, outputs, progress.add)
