"""Redact personal data in the inputs of a dataset before anything else reads them, and report counts without values.

The settings and the version of the recognisers go with the dataset and the model that is trained on it, whose endpoint
redacts requests by the same code. Ray Data redacts large data, each task a file; small data is redacted in the step's
own process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from raypath.components.core.artifacts import PAGE, Dataset
from raypath.components.core.columns import Language, Redaction, Replacement
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import Params
from raypath.components.data.wording import plural
from raypath.components.privacy.kinds import DEFAULT, WORDS, Kind

if TYPE_CHECKING:
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.privacy.rows import RedactRows

ROWS, ORIGINALS = "rows", "originals"
"""Folders of the redacted rows, and of their ciphertext."""


class RedactParams(Params):
    """Kinds of personal data, what stands in their place, and models of names."""

    enabled: bool = False
    """Replace personal data in texts, conversations and preferences, at training and in service."""
    kinds: tuple[Kind, ...] = DEFAULT
    """Kinds to replace: secret, email, iban, resident_id, card, ssn, passport, mac, ip, phone, birth_date, plate,
    address, name, organisation. Names and organisations are found by the models in `names` alone."""
    replacement: Replacement = "type"
    """type puts the kind in its place, as in <EMAIL>; mask asterisks; hash a keyed hash, as in <EMAIL:3f09>; surrogate
    made-up data of the same kind, the same for the same data. Hash and surrogate use the key in the home folder, or in
    $RAYPATH_REDACTION_KEY."""
    names: tuple[Language, ...] = ()
    """Models that find names and addresses: en, zh. They need the extra `privacy` and take most of the time."""
    reversible: bool = False
    """Keep the originals, encrypted with the key: raypath.components.privacy.restore returns them to those who have
    it."""

    def facts(self, key: str) -> Redaction:
        """Return what goes with the dataset. key: id of the key."""
        from raypath.components.privacy.recogniser import VERSION

        keyed = self.replacement in ("hash", "surrogate")
        return Redaction(
            version=VERSION,
            kinds=tuple(kind.value for kind in Kind if kind in self.kinds),
            replacement=self.replacement,
            names=self.names,
            key=key if keyed else "",
        )


@component(version=1, by_shard=True)
def redact(ctx: Context, data: Dataset, params: RedactParams) -> Dataset:
    """Replace personal data in the inputs: texts, and the content of messages. Labels and other columns remain.

    Writes rows/, report.html and report.json with counts by kind, and originals/ if they are to be kept. Raises
    DataError for a dataset without a text, UserError for a malformed key.
    """
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.shard_files import shard_files
    from raypath.components.data.streaming.stream import is_small
    from raypath.components.privacy.keys import ensure_key
    from raypath.components.privacy.redactor import KEYED, Redactor
    from raypath.components.privacy.rows import RedactRows, redactable
    from raypath.components.reports.redaction import RedactionReport, write_report

    columns = redactable(data.columns)
    if not columns:
        raise DataError("no input column is a text", fix="leave redact.enabled unset")
    keyed = params.replacement in KEYED or params.reversible
    key = ensure_key(ctx.signing) if keyed else None
    settings = params.facts(key.id if key else "")
    rows = RedactRows(Redactor(settings, key), columns)
    progress = ProgressReporter(ctx, data.rows * (2 if params.reversible else 1))
    write = _write if is_small(shard_files(data.uri)) else _write_in_tasks
    changed, counts = write(ctx, data, rows, progress, params.reversible)
    progress.finish()
    report = RedactionReport(
        source=data.source,
        rows=data.rows,
        redacted_rows=changed,
        counts=dict(sorted(counts.items())),
        settings=settings,
        sealed_by=key.id if key and params.reversible else "",
    )
    write_report(ctx.out, report)
    for name in (PAGE, "report.json"):
        ctx.track.artifact(ctx.out / name, "redaction")
    ctx.track.metrics({"redacted_rows": float(changed), **{f"redacted/{kind}": float(n) for kind, n in counts.items()}})
    found = ", ".join(f"{WORDS[Kind(kind)]} {n:,}" for kind, n in counts.most_common(4)) or "nothing"
    ctx.log.info("replaced personal data in %s of %s: %s", f"{changed:,}", plural(data.rows, "row"), found)
    return data.model_copy(update={"uri": ROWS, "digest": "", "redaction": settings})


def _write(
    ctx: Context, data: Dataset, rows: RedactRows, progress: ProgressReporter, reversible: bool
) -> tuple[int, Counter[str]]:
    """Write the rows in this process. Returns the number of rows with personal data, and of items by kind."""
    import pyarrow.compute as pc

    from raypath.components.data.streaming.parquet import TableWriter, scan, schema_of
    from raypath.components.data.streaming.stream import BATCH_ROWS
    from raypath.components.privacy import rows as redacting

    changed, counts = 0, Counter[str]()
    with TableWriter(ctx.out / ROWS, schema_of(data.uri)) as writer:
        for group in scan(data.uri):
            for start in range(0, len(group), BATCH_ROWS):
                made = rows(group.slice(start, BATCH_ROWS))
                writer.write(made)
                changed += pc.sum(made[redacting.CHANGED]).as_py() or 0
                counts.update(pc.list_flatten(made[redacting.FOUND]).to_pylist())
            progress.add(len(group))
    if reversible:
        seal = redacting.SealRows(rows)
        with TableWriter(ctx.out / ORIGINALS, redacting.ORIGINALS) as writer:
            for group in scan(data.uri):
                writer.write(seal(group))
                progress.add(len(group))
    return changed, counts


def _write_in_tasks(
    ctx: Context, data: Dataset, rows: RedactRows, progress: ProgressReporter, reversible: bool
) -> tuple[int, Counter[str]]:
    """Write the same files with Ray Data, each by one task."""
    from raypath.components.data.streaming.parquet import schema_of
    from raypath.components.data.streaming.row_files import dataset_files
    from raypath.components.data.streaming.shard_tasks import Output, write_outputs
    from raypath.components.privacy import rows as redacting

    files = dataset_files(data.uri)
    outputs = {ROWS: Output(files, schema_of(data.uri), rows, redacting.CHANGED, redacting.FOUND)}
    if reversible:
        outputs[ORIGINALS] = Output(files, redacting.ORIGINALS, redacting.SealRows(rows))
    written = write_outputs(ctx, outputs, progress.add)[ROWS]
    counts: Counter[str] = Counter()
    for shard in written:
        counts.update(dict(shard.tally))
    return sum(shard.counted for shard in written), counts
