"""Recall, precision and speed of redaction on made-up texts: `python -m tests.bench.redaction [TEXTS] [--names]`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from raypath.components.core.columns import Redaction
from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.recogniser import VERSION
from raypath.components.privacy.redactor import Redactor
from tests.components.privacy.made_up import Text, texts


@dataclass
class Result:
    """Counts of items, of those that are covered in full, of found ranges, and of those that are no item."""

    wanted: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[str, str, str]] = field(default_factory=list)
    """Kind, item and text."""
    mistaken: list[tuple[str, str, str]] = field(default_factory=list)

    def recall(self, *names: str, but: tuple[str, ...] = ()) -> float:
        """Share of the items of these kinds, of all without any, that are covered in full."""
        chosen = [kind for kind in self.wanted if (not names or kind in names) and kind not in but]
        return sum(self.covered[kind] for kind in chosen) / max(sum(self.wanted[kind] for kind in chosen), 1)

    @property
    def precision(self) -> float:
        """Share of the found ranges that touch an item."""
        return 1 - self.wrong.total() / max(self.found.total(), 1)


def redactor(*names: str) -> Redactor:
    """A redactor of all kinds."""
    return Redactor(
        Redaction(version=VERSION, kinds=tuple(kind.value for kind in Kind if kind != "organisation"), names=names)
    )  # type: ignore[arg-type]


def measure(rows: list[Text], found: Redactor) -> Result:
    """Compare what is found with what is in the texts."""
    result = Result()
    for row, spans in zip(rows, found.spans([row.text for row in rows]), strict=True):
        taken = {n for span in spans for n in range(span.start, span.end)}
        for start, end, kind in row.found:
            if kind == "name" and not found.settings.names:
                continue
            result.wanted[kind] += 1
            if all(n in taken for n in range(start, end) if row.text[n].isalnum()):
                result.covered[kind] += 1
            else:
                result.missed.append((kind, row.text[start:end], row.text))
        for span in spans:
            result.found[span.kind] += 1
            if not any(span.start < end and start < span.end for start, end, _ in row.found):
                result.wrong[span.kind] += 1
                result.mistaken.append((span.kind, row.text[span.start : span.end], row.text))
    return result


def _redact(rows: list[str]) -> int:
    return len(redactor().texts(rows))


def speed(rows: list[str], processes: int = 2) -> float:
    """Texts a second by patterns, in this many processes."""
    parts = [rows[n::processes] for n in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_redact, [part[:50] for part in parts]))
        began = time.perf_counter()
        list(pool.map(_redact, parts))
        return len(rows) / (time.perf_counter() - began)


def main() -> None:
    number = int(next((each for each in sys.argv[1:] if each.isdigit()), 2_000))
    seed = int(next((each[5:] for each in sys.argv[1:] if each.startswith("seed=")), 0))
    for language in ("en", "zh"):
        rows = texts(language, number, seed)
        found = redactor(*([language] if "--names" in sys.argv else []))
        began = time.process_time()
        result = measure(rows, found)
        seconds = time.process_time() - began
        structured = result.recall(but=("name", "address"))
        print(f"{language}: {len(rows):,} texts, {sum(len(r.text) for r in rows) / len(rows):.0f} characters each")
        names, addresses = result.recall("name"), result.recall("address")
        print(f"  recall: structured {structured:.2%}, names {names:.2%}, addresses {addresses:.2%}")
        share, rate = result.precision, len(rows) / seconds
        print(f"  precision {share:.2%} of {result.found.total():,}; {rate:,.0f} texts a CPU second")
        for kind in sorted(result.wanted):
            print(f"    {kind:14} {result.covered[kind]:5} of {result.wanted[kind]:5}  wrong {result.wrong[kind]}")
        if "-v" in sys.argv:
            for what, pairs in (("missed", result.missed), ("mistaken", result.mistaken)):
                for kind, item, text in pairs[:40]:
                    print(f"  {what} {kind}: {item!r} in {text!r}"[:400])
    if "--speed" in sys.argv:
        all_texts = [row.text for language in ("en", "zh") for row in texts(language, number, seed)]
        print(f"patterns: {speed(all_texts):,.0f} texts a second in 2 processes")


if __name__ == "__main__":
    main()
