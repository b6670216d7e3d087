"""Split rows into train, valid and test: as the data says, else by lot with the classes in proportion.

Only numbers are held in memory, about 30 bytes a row and 12 a class of a set; texts stream from file to file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from raypath.components.core.artifacts import Dataset, Splits
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import Fraction, Params

if TYPE_CHECKING:
    from raypath.components.data.splits.label_statistics import LabelStatistics


class SplitParams(Params):
    """How large the parts are, and what rows they may not share."""

    valid: Fraction = 0.1
    """Share of the rows for validation, 0 to 1; not used where the data says which rows these are."""
    test: Fraction = 0.1
    """Share of the rows for the test, 0 to 1; not used where the data says which rows these are."""
    stratify: bool = True
    """Keep the classes in proportion in every part: of sets the rarest class of each row, of numbers ten quantiles."""
    min_rows: int = 0
    """Leave out classes with fewer rows than this, of sets the class and not the row. 0 leaves out none; a class of one
    row is then an error, and in sets goes to train."""
    duplicates: Literal["keep", "drop"] = "keep"
    """What to do with rows of train whose very text is also in valid or test: only warn, or leave them out of train."""

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError("valid and test together leave nothing for train")
        return self


@component(version=1)
def split(ctx: Context, data: Dataset, params: SplitParams) -> Splits:
    """Every row in one part, in the order of the data.

    Given parts stay as they are; a part that is not given is taken from train. With the column `group` whole groups
    move, and shares and proportions are then approximate. Rows of a set move to train where it would lack a class.
    Raises DataError for 1 or over 1,000 classes, a class of one row, a class that train lacks, or a train part without
    rows.
    """
    from raypath.components.data.splits.assign import NAMES, TEST, TRAIN, VALID, assign
    from raypath.components.data.splits.label_statistics import collect_statistics
    from raypath.components.data.splits.stratify import ensure_classes_in_train, strata
    from raypath.components.data.streaming.progress import ProgressReporter

    source, progress, shares = (
        Path(data.uri),
        ProgressReporter(ctx, 2 * data.rows),
        {VALID: params.valid, TEST: params.test},
    )
    found, given = _without_rare(ctx, collect_statistics(source, progress), params.min_rows)
    codes = strata(found, given, shares) if params.stratify else found.codes * 0
    parts = ensure_classes_in_train(found, given, assign(codes, given, found.groups, shares, ctx.seed))
    parts = _without_leaks(ctx, found, parts, params.duplicates)
    _check(ctx, found, parts)
    _write(ctx, source, parts, found.gone, progress)
    rows = {part: int((parts == part).sum()) for part in NAMES}
    ctx.log.info("train %s, valid %s, test %s rows", *(f"{rows[p]:,}" for p in (TRAIN, VALID, TEST)))
    made = {
        name: data.model_copy(update={"uri": name, "digest": "", "rows": rows[part]}) for part, name in NAMES.items()
    }
    return Splits(train=made["train"], valid=made["valid"], test=made["test"])


def _without_rare(ctx: Context, found: LabelStatistics, least: int) -> tuple[LabelStatistics, Any]:
    """The census and the given parts without rare classes. Raises DataError for too few or too many classes."""
    from raypath.components.data.columns.labels import MAX_CLASSES
    from raypath.components.data.splits.assign import DROPPED

    given = found.given.copy()
    if not found.classed:
        return found, given
    counts = found.counts()
    rare = counts < least
    if rare.any():
        if found.members is None:
            given[rare[found.codes]] = DROPPED
        else:
            found = found.without(rare)
        ctx.log.warning("left out %d classes with fewer than %d rows", int(rare.sum()), least)
    kept = [(label, int(n)) for label, n, out in zip(found.classes, counts, rare, strict=True) if not out]
    if not 2 <= len(kept) <= MAX_CLASSES:
        names = f", {kept[0][0]}" if len(kept) == 1 else ""
        what = f"got {len(kept):,} class{'' if len(kept) == 1 else 'es'}{names}; wanted 2 to {MAX_CLASSES:,}"
        raise DataError(what, fix="name the label column with -s read.label=, or lower split.min_rows")
    single = [label for label, n in kept if n == 1]
    if single and found.members is None:
        more = f" and {len(single) - 3} others" if len(single) > 3 else ""
        what = f"class {', '.join(sorted(single)[:3])}{more} has 1 row; wanted at least 2 a class"
        raise DataError(what, fix="merge it into another class, or leave it out with -s split.min_rows=2")
    return found, given


def _without_leaks(ctx: Context, found: LabelStatistics, parts: Any, what: str) -> Any:
    """Count the texts of train that are also in valid or test; drop them from train when told so."""
    import numpy as np

    from raypath.components.data.splits.assign import DROPPED, TEST, TRAIN, VALID

    held = (parts == VALID) | (parts == TEST)
    leaks = (parts == TRAIN) & np.isin(found.texts, found.texts[held])
    number = int(leaks.sum())
    if number and what == "drop":
        ctx.log.warning("left %s rows out of train: the same text is in valid or test", f"{number:,}")
        return np.where(leaks, np.int8(DROPPED), parts)
    if number:
        ctx.log.warning(
            "%s rows of train have a text that is also in valid or test, which flatters the scores; "
            "-s split.duplicates=drop leaves them out",
            f"{number:,}",
        )
    return parts


def _check(ctx: Context, found: LabelStatistics, parts: Any) -> None:
    """Train has rows, and every class that valid or test has; groups that cross given parts are told."""
    import numpy as np

    from raypath.components.data.splits.assign import NAMES, TEST, TRAIN, VALID

    if not (parts == TRAIN).any():
        raise DataError("no row is left for train", fix="lower split.valid and split.test, or correct the given parts")
    if found.classes:
        learnt = found.present(parts == TRAIN)
        for part in (VALID, TEST):
            lacking = found.present(parts == part) - learnt
            if lacking:
                names = ", ".join(sorted(found.classes[code] for code in lacking)[:5])
                what = f"train has no row of class {names}, which {NAMES[part]} has"
                raise DataError(what, fix="keep split.stratify=true, move rows of the class to train, or take it out")
    if found.groups is not None:
        held = found.groups[(parts == VALID) | (parts == TEST)]
        crossing = len(np.intersect1d(found.groups[parts == TRAIN], held))
        if crossing:
            ctx.log.warning("%s groups lie in train and in a given valid or test part", f"{crossing:,}")


def _write(ctx: Context, source: Path, parts: Any, gone: frozenset[str], progress: Any) -> None:
    """One folder a part, without the column `part`, and without the classes `gone` in sets."""
    from contextlib import ExitStack

    from raypath.components.data.columns.label_sets import without
    from raypath.components.data.splits.assign import NAMES
    from raypath.components.data.splits.label_statistics import mask
    from raypath.components.data.streaming.parquet import TableWriter, scan, schema_of

    schema = schema_of(source)
    if "part" in schema.names:
        schema = schema.remove(schema.get_field_index("part"))
    with ExitStack() as stack:
        writers = {part: stack.enter_context(TableWriter(ctx.out / name, schema)) for part, name in NAMES.items()}
        row = 0
        for table in scan(source, schema.names):
            here = parts[row : row + table.num_rows]
            if gone:
                table = without(table, gone)
            for part, writer in writers.items():
                writer.write(table.filter(mask(here, part)))
            row += table.num_rows
            progress.add(table.num_rows)
    progress.end()
