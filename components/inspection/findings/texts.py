"""Texts: lengths and truncation, languages, personal data, and texts unlike the others."""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.data.wording import percent, plural, verb
from raypath.components.inspection.findings.make import Found, finding, noun
from raypath.components.inspection.report import Lengths, Severity
from raypath.components.inspection.statistics import Statistics
from raypath.components.inspection.texts import languages as language_module
from raypath.components.inspection.texts import personal_data as personal_module
from raypath.components.inspection.texts import shapes as shape_module
from raypath.components.models.conversion.packaged import MULTILINGUAL

_QUANTILES = {"min": 0, "5%": 5, "median": 50, "95%": 95, "99%": 99, "max": 100}
_BARS = 24
_SHOWN_LANGUAGES = 0.01
_KIND_NAMES = {
    "email": "an e-mail address",
    "url": "a URL",
    "ip": "an IP address",
    "card": "a card number",
    "iban": "a bank account (IBAN)",
    "resident_id": "a Chinese resident ID number",
    "phone": "a phone number",
}


def lengths_of(found: Statistics, max_length: int, tokens: bool) -> Lengths | None:
    """Quantiles and a histogram of the lengths; the last bar has all texts beyond the 99th percentile."""
    lengths = found.lengths[found.present]
    if not len(lengths):
        return None
    values = np.percentile(lengths, list(_QUANTILES.values()), method="lower").astype(int)
    top = max(int(np.percentile(lengths, 99)), _BARS)
    step = -(-top // _BARS)
    edges = np.arange(0, _BARS + 1) * step
    histogram = np.bincount(np.minimum(lengths // step, _BARS - 1), minlength=_BARS)
    return Lengths(
        unit="tokens" if tokens else "words",
        quantiles=dict(zip(_QUANTILES, values.tolist(), strict=True)),
        edges=edges.tolist(),
        histogram=histogram.tolist(),
        max_length=max_length,
        truncated=int((lengths > max_length).sum()),
    )


def truncation(found: Statistics, lengths: Lengths, limit: int | None) -> list[Found]:
    """Texts longer than the maximum; advises the length that nearly all have, up to the model's limit."""
    present, tokens = found.present, found.lengths
    rows = np.flatnonzero((tokens > lengths.max_length) & present)
    if not len(rows):
        return []
    wanted = max(64, -(-int(np.percentile(tokens[present], 98)) // 64) * 64)
    better = min(wanted, limit or wanted)
    settings = {"preprocess.max_length": better} if better > lengths.max_length else {}
    unit = lengths.unit if lengths.unit == "tokens" else "words, and so of more tokens,"
    done = "dropped" if found.has_conversations else "truncated: what comes after is not seen"
    text = (
        f"{plural(len(rows), noun(found))} ({percent(len(rows), found.rows)}) of more than {lengths.max_length} {unit} "
        f"{verb(len(rows), 'is', 'are')} {done}"
    )
    if not settings and limit and limit <= lengths.max_length:
        text += f"; the base takes no more than {limit} tokens"
    severity = Severity.WARNING if len(rows) > 0.05 * found.rows else Severity.NOTE
    return [finding("truncated", severity, text, found, rows, settings)]


def language_counts(found: Statistics) -> dict[str, int]:
    """Texts by language, the most frequent first."""
    counts = np.bincount(found.languages[found.present], minlength=len(language_module.NAMES))
    order = np.argsort(-counts, kind="stable")
    return {language_module.NAMES[n]: int(counts[n]) for n in order if counts[n]}


def languages(found: Statistics) -> list[Found]:
    """Several languages in one data set."""
    unknown = language_module.NAMES.index(language_module.UNKNOWN)
    codes, present = found.languages, found.present
    counts = np.bincount(codes[present & (codes != unknown)], minlength=len(language_module.NAMES))
    known = int(counts.sum())
    others = [n for n in np.argsort(-counts, kind="stable")[1:] if counts[n] > max(_SHOWN_LANGUAGES * known, 5)]
    if not others:
        return []
    rows = np.flatnonzero(np.isin(codes, others) & present)
    main, names = language_module.NAMES[int(counts.argmax())], ", ".join(language_module.NAMES[n] for n in others[:5])
    text = (
        f"{plural(len(rows), noun(found))} ({percent(len(rows), found.rows)}) {verb(len(rows), 'seems', 'seem')} to be "
        f"in another language ({names}) than most ({main}); a base for one language reads "
        f"{verb(len(rows), 'it', 'them')} badly: set finetune.base to a multilingual one"
    )
    text += "" if found.has_conversations else f", such as {MULTILINGUAL}"
    return [finding("languages", Severity.NOTE, text, found, rows)]


def personal_counts(found: Statistics) -> dict[str, int]:
    """Rows by kind of personal data."""
    personal = found.personal
    counts = {kind: int(((personal >> n) & 1).sum()) for n, kind in enumerate(personal_module.KINDS)}
    return {kind: count for kind, count in counts.items() if count}


def personal_data(found: Statistics) -> list[Found]:
    """Rows with personal data, by kind; URLs alone are none."""
    counts = personal_counts(found)
    named = [f"{count:,} with {_KIND_NAMES[kind]}" for kind, count in counts.items() if kind != "url"]
    if not named:
        return []
    url = 1 << personal_module.KINDS.index("url")
    rows = np.flatnonzero((found.personal & ~np.uint8(url)) > 0)
    text = (
        f"{plural(len(rows), 'row')} {verb(len(rows), 'seems', 'seem')} to have personal data: {', '.join(named)}; "
        "remove or mask it before training"
    )
    return [finding("personal_data", Severity.WARNING, text, found, rows)]


def outliers(found: Statistics) -> list[Found]:
    """Texts whose characters or length are far from those of all others."""
    present = np.flatnonzero(found.present)
    chosen, columns = shape_module.outliers(found.shape(n)[present] for n in range(len(shape_module.NAMES)))
    if not len(chosen):
        return []
    rows: Array = present[chosen]
    counts = np.bincount(columns, minlength=len(shape_module.NAMES))
    order = np.argsort(-counts, kind="stable")
    why = ", ".join(f"{counts[n]:,} by {shape_module.NAMES[n]}" for n in order if counts[n])
    what = f"{plural(len(rows), noun(found))} {verb(len(rows), 'is', 'are')} unlike all others ({why})"
    text = f"{what}: see whether {verb(len(rows), 'it belongs', 'they belong')} to the data"
    return [finding("outliers", Severity.NOTE, text, found, rows)]
