"""Render the report on generated answers as one HTML page without scripts, and write it with report.json.

Texts are given apart from the report, by row number: the page has those that it is given, report.json has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raypath.components.data.wording import plural
from raypath.components.reports.generation.contents import GenerationReport, Measured, SampleText
from raypath.components.reports.generation.render_samples import leaks, samples
from raypath.components.reports.page import charts
from raypath.components.reports.page.files import write_files
from raypath.components.reports.page.html import card, folded, heading, page, summary, table, text

_NAMES = {
    **{"rouge_l": "ROUGE-L", "chrf": "chrF", "bleu": "BLEU", "token_f1": "token F1", "valid_json": "valid JSON"},
    **{"answer_macro_f1": "macro F1 of choices", "answer_accuracy": "accuracy of choices"},
    **{"accuracy": "next-token accuracy", "json_match": "equal JSON", "json_fields": "F1 of JSON fields"},
    **{"schema_valid": "valid by the schema", "stopped": "ended by the model", "judge": "preferred by the judge"},
}
_CERTAIN = 0.975
"""Chance of being better, or worse, from which a change is shown as one: that of a 95% interval without 0."""
_TRUSTED_JUDGE = 0.6
"""Agreement of both orders below which a judge's preference is doubtful."""


def write_report(folder: Path, report: GenerationReport, texts: Mapping[int, SampleText]) -> None:
    """Write report.html and report.json, readable by the owner only. texts: by row number; the page shows them."""
    write_files(folder, render(report, texts), report)


def render(report: GenerationReport, texts: Mapping[int, SampleText]) -> str:
    """Return the page as HTML."""
    body = [
        _head(report),
        _summary(report),
        _metrics(report),
        _lengths(report),
        _judge(report),
        _harness(report),
        leaks(report, texts),
        samples(report, texts),
        _foot(report, bool(texts)),
    ]
    return page("Generated text", report.source, [part for part in body if part])


def metric_name(key: str) -> str:
    """Format the name of a metric."""
    return _NAMES.get(key) or key.replace("_", " ")


def number(value: float, signed: bool = False) -> str:
    """Format a metric, with fewer digits for large numbers."""
    sign = "+" if signed else ""
    # 0.0 is added to a rounded number, which turns -0.0 into 0.0.
    return f"{round(value, 3) + 0.0:{sign}.3f}" if abs(value) < 10 else f"{value:{sign},.1f}"


def _harness(report: GenerationReport) -> str:
    """Show the tasks of lm-evaluation-harness."""
    if not report.harness:
        return ""
    based = any(each.before is not None for each in report.harness)
    head = ["task", "metric", "value", "± standard error", *(["base"] if based else [])]
    rows = [
        [
            text(each.task),
            text(each.metric),
            number(each.value),
            "" if each.error is None else number(each.error),
            *([""] if each.before is None else [number(each.before)])[: len(head) - 4],
        ]
        for each in report.harness
    ]
    return card("lm-evaluation-harness", table(head, rows, range(2, len(head))))


def _head(report: GenerationReport) -> str:
    rows = plural(report.rows, "test row")
    of = f" of {report.split_rows:,}" if report.rows < report.split_rows else ""
    facts = [
        f"base {report.base}" if report.base else "",
        f"test split {report.test[:12]}",
        f"at most {report.max_new_tokens:,} tokens a response",
        f"{report.tokens_per_second:,.0f} tokens a second" if report.tokens_per_second else "",
    ]
    return heading(report.source, f"Responses of the fine-tuned model, {rows}{of}", facts)


def _summary(report: GenerationReport) -> str:
    """Say in a few lines what is to be known first."""
    found = [_said(report, name) for name in dict.fromkeys((report.main, "loss")) if name in report.metrics]
    found += [line for line in (_worse(report), _cut(report), _leaked(report), _doubt(report)) if line]
    found += [("note", "note", text(note)) for note in report.notes]
    return summary(found)


def _said(report: GenerationReport, name: str) -> tuple[str, str, str]:
    each = report.metrics[name]
    spread = f' <span class="soft">({_span(each)})</span>' if each.value.low is not None else ""
    line = f"{text(metric_name(name))} <b>{number(each.value.value)}</b>{spread}"
    if each.before is not None and each.change is not None:
        word = {"better": "better than", "worse": "worse than"}.get(verdict(each), "not clearly different from")
        line += f", {word} the base's {number(each.before)}"
    return (
        ("warning" if verdict(each) == "worse" else "note"),
        "responses" if name == report.main else "likelihood",
        line,
    )


def verdict(each: Measured) -> str:
    """Return better, worse, or "" for a metric without a clear change."""
    if each.neutral or each.chance is None:
        return ""
    return "better" if each.chance >= _CERTAIN else "worse" if each.chance <= 1 - _CERTAIN else ""


def _worse(report: GenerationReport) -> tuple[str, str, str] | None:
    names = [n for n, each in report.metrics.items() if verdict(each) == "worse" and n not in (report.main, "loss")]
    if not names:
        return None
    said = ", ".join(
        f"{text(metric_name(n))} {number(report.metrics[n].before or 0)} to {number(report.metrics[n].value.value)}"
        for n in names
    )
    return "warning", "worse than the base", said


def _cut(report: GenerationReport) -> tuple[str, str, str] | None:
    stopped = report.metrics.get("stopped")
    if stopped is None or stopped.value.value >= 0.95:
        return None
    share = f"{1 - stopped.value.value:.0%} of the responses were truncated at {report.max_new_tokens:,} tokens"
    return "warning", "truncated responses", f"{share}; raise evaluate.max_new_tokens, or check for repetition loops"


def _leaked(report: GenerationReport) -> tuple[str, str, str] | None:
    canaries = report.metrics.get("canaries")
    if canaries is not None and canaries.value.value > 0:
        return "error", "leaks", f"{canaries.value.value:.1%} of the responses contain a planted canary"
    if not report.leaks:
        return None
    share = report.metrics["leaks"].value.value if "leaks" in report.metrics else 0.0
    words = plural(report.leaks[0].words, "word")
    return "warning", "leaks", f"{share:.1%} of the responses copy a passage of a training response, of up to {words}"


def _doubt(report: GenerationReport) -> tuple[str, str, str] | None:
    judge = report.judge
    if judge is None or judge.agreement is None or judge.agreement >= _TRUSTED_JUDGE:
        return None
    return (
        "warning",
        "judge",
        f"the judge gives the same verdict in both orders for {judge.agreement:.0%} of the rows only",
    )


def _span(each: Measured) -> str:
    low, high = each.value.low, each.value.high
    return f"95%: {number(low)} to {number(high)}" if low is not None and high is not None else ""


def _metrics(report: GenerationReport) -> str:
    compared = any(each.before is not None for each in report.metrics.values())
    head = ["metric", *(["base"] if compared else []), "model", "95% interval", ""]
    head += ["change", "95% interval"] if compared else []
    rows = [_metric_row(name, each, compared) for name, each in report.metrics.items()]
    note = "Bootstrap intervals; the change is paired by row." if compared else ""
    numbers = [1, 2, 3, 5, 6] if compared else [1, 2]
    return card("Metrics", table(head, rows, numbers), note)


def _metric_row(name: str, each: Measured, compared: bool) -> list[str]:
    arrow = "" if each.neutral else f' <span class="soft">{"↓" if each.lower else "↑"}</span>'
    title = f'<b>{text(metric_name(name))}</b>{arrow}<br><small class="soft">{text(each.about)}</small>'
    low, high, top = each.value.low, each.value.high, each.top
    span, picture = "", ""
    if low is not None and high is not None:
        span = f'<span class="soft">{number(low)} to {number(high)}</span>'
        picture = charts.interval(each.value.value / top, low / top, high / top) if top else ""
    row = [f'<span class="metric">{title}</span>', number(each.value.value), span, picture]
    if compared:
        row.insert(1, number(each.before) if each.before is not None else "")
        row += _change_cells(each)
    return row


def _change_cells(each: Measured) -> list[str]:
    if each.change is None:
        return ["", ""]
    style = {"better": "good", "worse": "bad"}.get(verdict(each), "soft")
    low, high = each.change.low, each.change.high
    span = f"{number(low, True)} to {number(high, True)}" if low is not None and high is not None else ""
    return [f'<span class="{style}">{number(each.change.value, True)}</span>', f'<span class="soft">{span}</span>']


def _lengths(report: GenerationReport) -> str:
    found = report.lengths
    every = (("references", found.reference), ("model", found.answer), ("base", found.before))
    series = [(name, counts) for name, counts in every if counts]
    edges = [f"{edge:,}" for edge in found.edges]
    chart = charts.grouped(series, edges, "words of a response; the last bin includes longer ones")
    return card("Lengths", f'<div class="chart">{chart}</div>')


def _judge(report: GenerationReport) -> str:
    judge = report.judge
    if judge is None:
        return ""
    agreement = f"{judge.agreement:.0%}" if judge.agreement is not None else "unknown"
    rows = [
        ["model", text(f"{judge.model} at {judge.url}")],
        ["rows judged", f"{judge.rows:,}, each in both orders"],
        ["same verdict in both orders", agreement],
        ["cost", f"{judge.tokens:,} tokens in {plural(judge.requests, 'request')}"],
        *([["failed", text(judge.failure)]] if judge.failure else []),
    ]
    return card(
        "Judge",
        table(["", ""], rows),
        "A language model's preference between the responses of the model and of the base.",
    )


def _foot(report: GenerationReport, texts: bool) -> str:
    where = "" if texts else " Texts are in the report of the run's own files, and here with evaluate.texts=true."
    choices = folded("the choices", text("; ".join(report.choices))) if report.choices else ""
    return (
        f"<footer>{choices}<p>Rows are numbered from 0 in the order of the test split, as in predictions.parquet. "
        f"All values are in report.json.{where}</p></footer>"
    )
