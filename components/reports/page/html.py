"""Parts of a page as HTML text. Every value of the user's goes through `text` or `name`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from raypath.components.core.errors import printable
from raypath.components.data.wording import percent

LONGEST = 600
"""Characters of a text that a page shows."""


def page(kind: str, title: str, body: Iterable[str]) -> str:
    """Return the whole page. kind: such as Data report."""
    shell = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    head, _, tail = shell.partition("{{body}}")
    return head.replace("{{title}}", f"{kind} · {text(title)}") + "\n".join(body) + tail


def text(value: str) -> str:
    """Escape a value of the user's; control characters are shown as escapes."""
    return escape(printable(value))


def name(value: str) -> str:
    """Isolate a name of any script, so that one from right to left does not move what is beside it."""
    return f"<bdi>{text(value)}</bdi>"


def quote(value: str, longest: int = LONGEST, lead: str = "") -> str:
    """Show a text of a row in its own direction, shortened, as a block. lead: words before it."""
    shown = " ".join(value.split())
    shown = shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
    before = f'<small class="soft">{text(lead)}</small> ' if lead else ""
    return f'<span class="quote">{before}<bdi>{text(shown)}</bdi></span>'


def heading(title: str, lead: str, facts: Iterable[str]) -> str:
    """Return the head of a page. lead: HTML; facts: empty ones are left out."""
    shown = "".join(f"<li>{text(fact)}</li>" for fact in facts if fact)
    return f'<h1>{text(title)}</h1><p class="lead">{lead}</p><ul class="counts">{shown}</ul>'


def summary(findings: Iterable[tuple[str, str, str]]) -> str:
    """Return findings, each with its tone (note, warning, error), kind and HTML; "" for none."""
    lines = "".join(
        f'<section class="card finding {tone}"><p class="kind">{kind}</p><p>{said}</p></section>'
        for tone, kind, said in findings
    )
    return f"<h2>Summary</h2>{lines}" if lines else ""


def card(title: str, content: str, note: str = "") -> str:
    """Return a section of the page. title, content and note are HTML."""
    head = f"<h2>{title}</h2>" if title else ""
    said = f'<p class="said">{note}</p>' if note else ""
    return f'<section class="card">{head}{said}{content}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), style: str = "") -> str:
    """Return a table that scrolls where it is wide. Cells are HTML; numbers: columns that are aligned to the right."""
    right = set(numbers)
    marks = ['class="number"' if n in right else "" for n in range(len(head))]
    top = "".join(f"<th {mark}>{cell}</th>" for mark, cell in zip(marks, head, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td {mark}>{cell}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def folded(summary: str, content: str) -> str:
    """Return content that is shown on a click, which needs no script."""
    return f"<details><summary>{summary}</summary>{content}</details>" if content else ""


def bars(title: str, values: Sequence[tuple[str, int]], total: int, more: str = "", shares: bool = False) -> str:
    """Return a card of counts as bars, with their shares of the total. more: HTML below them.

    shares: a full bar is the total, and not the largest count.
    """
    top = total if shares else max((count for _, count in values), default=1) or 1
    lines = "".join(
        f'<div class="bar"><span title="{text(each)}">{name(each)}</span>'
        f'<i><b style="width: {100 * count / top:.1f}%"></b></i><em>{count:,} · {percent(count, total)}</em></div>'
        for each, count in values
    )
    return f'<section class="card"><h2>{title}</h2>{lines}{more}</section>'
