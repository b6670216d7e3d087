"""Sections of the page that show rows: samples side by side, and answers that copy training answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from raypath.components.core.errors import printable
from raypath.components.data.wording import plural
from raypath.components.reports.generation.contents import GenerationReport, Sample, SampleText
from raypath.components.reports.page.html import card, folded, table, text

LONGEST = 1_500
"""Characters of a text that are shown at once; the rest is shown on a click."""
_OPEN = 12
"""Samples that are open at first."""


def samples(report: GenerationReport, texts: Mapping[int, SampleText]) -> str:
    """Show each sample: the prompt, then the reference, the base's answer and the model's side by side."""
    if not report.samples:
        return ""
    if not texts:
        return _numbers(report.samples)
    shown = [_sample(each, texts[each.row], n < _OPEN) for n, each in enumerate(report.samples) if each.row in texts]
    note = f"Chosen by {text(report.main.replace('_', ' '))} of the row. Texts are escaped."
    return f'<h2>Samples</h2><p class="said">{note}</p>' + "".join(shown)


def leaks(report: GenerationReport, texts: Mapping[int, SampleText]) -> str:
    """List the answers that copy a passage of a training answer."""
    if not report.train_rows:
        return ""
    read = f"{plural(report.train_rows, 'training response')} checked"
    if not report.leaks:
        return card("Leaks", "<p>No response copies a passage of a training response.</p>", read)
    head = ["row", "words", *(["response"] if texts else [])]
    rows = [
        [f"{each.row:,}", f"{each.words:,}", *([_block(texts[each.row].answer)] if each.row in texts else [])]
        for each in report.leaks
    ]
    note = f"Words of the longest copied passage that is not in the prompt or the reference of the row. {read}."
    return card("Leaks", table(head, rows, (0, 1)), note)


def _numbers(found: Sequence[Sample]) -> str:
    compared = any(each.before is not None for each in found)
    rows = [
        [f"{each.row:,}", each.why, f"{each.score:.3f}", *([f"{each.before or 0:.3f}"] if compared else [])]
        for each in found
    ]
    return card("Samples", table(["row", "why", "score", *(["base"] if compared else [])], rows, (0, 2, 3)))


def _sample(each: Sample, given: SampleText, is_open: bool) -> str:
    base = "" if each.before is None else f", base {each.before:.3f}"
    title = f'row {each.row:,} · {text(each.why)} <span class="soft">score {each.score:.3f}{base}</span>'
    prompt = "".join(f'<p class="role">{text(role)}</p>{_block(said)}' for role, said in given.turns)
    answers = [("reference", given.reference), ("base", given.before), ("model", given.answer)]
    columns = "".join(
        f'<div class="answer {name}"><p class="role">{name}</p>{_block(said)}</div>'
        for name, said in answers
        if said is not None
    )
    state = " open" if is_open else ""
    return (
        f'<details class="card sample"{state}><summary>{title}</summary>{prompt}'
        f'<div class="answers">{columns}</div></details>'
    )


def _block(value: str) -> str:
    """Show a text with its lines, in its own direction; the rest of a long one on a click."""
    if not value.strip():
        return '<p class="soft">(empty)</p>'
    shown, rest = value[:LONGEST], value[LONGEST:]
    hidden = f'<div class="block" dir="auto">{_escaped(rest)}</div>' if rest else ""
    more = folded(f"{len(rest):,} more characters", hidden)
    return f'<div class="block" dir="auto">{_escaped(shown)}</div>{more}'


def _escaped(value: str) -> str:
    return "\n".join(escape(printable(line)) for line in value.replace("\r\n", "\n").split("\n"))
