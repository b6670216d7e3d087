"""Precision and recall of the data report on planted faults, and its time and memory.

python -m tests.bench.planted [--seed N] [--model ROWS]     10,000 rows, 1% of each fault
python -m tests.bench.planted --time ROWS        time and memory without the parts that need a model
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from raypath.components.data.sources.samples import load_sample, sample_files
from raypath.components.inspection.build import build_report
from raypath.components.inspection.params import InspectParams
from raypath.components.inspection.rows import Part
from tests.bench.reviews import BASE

ROWS, PLANTED = 10_000, 100
SPLITS = {"train": 8_000, "valid": 1_000, "test": 1_000}
Row = tuple[str, str]


def reviews(number: int, rng: random.Random) -> list[Row]:
    """Rows from the sample reviews: two sentences each, without texts that occur twice."""
    rows: dict[str, str] = {}
    for path, _ in sample_files("sample://reviews"):
        table = load_sample(path)
        for text, label in zip(table["review"].to_pylist(), table["score"].to_pylist(), strict=True):
            sentences = re.split(r"(?<=[.!?])\s+", text.strip())
            rows |= {" ".join(sentences[n : n + 2]): str(label) for n in range(0, len(sentences), 2)}
    found = [(text, label) for text, label in rows.items() if len(text.split()) >= 6]
    rng.shuffle(found)
    assert len(found) >= number, len(found)
    return found[:number]


def edited(text: str, rng: random.Random) -> str:
    """Replace one word of twenty, at least one, and change the case of the first letter."""
    words = text.split()
    for n in rng.sample(range(len(words)), max(1, len(words) // 20)):
        words[n] = rng.choice(("really", "quite", "maybe", "honestly"))
    return " ".join(words).swapcase()


def plant(rows: list[Row], rng: random.Random) -> dict[str, set[int]]:
    """Plant each fault in 1% of the rows; returns the rows that the report should find, by kind."""
    long = [n for n in range(SPLITS["train"]) if len(rows[n][0].split()) >= 20]
    rng.shuffle(long)
    test = list(range(SPLITS["train"] + SPLITS["valid"], ROWS))
    rng.shuffle(test)
    train = iter(long)
    held_out = iter(test)
    other = {"great": "other", "other": "great"}
    truth: dict[str, set[int]] = {}

    def add(kind: str, *positions: int) -> None:
        truth.setdefault(kind, set()).update(positions)

    for _ in range(PLANTED):
        first, second = sorted((next(train), next(train)))
        rows[second] = rows[first]
        add("duplicates", second)
        first, second = sorted((next(train), next(train)))
        rows[second] = edited(rows[first][0], rng), rows[first][1]
        add("near_duplicates", second)
        first, second = sorted((next(train), next(train)))
        rows[second] = rows[first][0], other[rows[first][1]]
        add("contradictions", first, second)
        add("duplicates", second)
        source, target = next(train), next(held_out)
        rows[target] = rows[source]
        add("leaks", source)
        add("duplicates", target)
        source, target = next(train), next(held_out)
        rows[target] = edited(rows[source][0], rng), rows[source][1]
        add("near_leaks", source)
        add("near_duplicates", target)
        row = next(train)
        rows[row] = rows[row][0], other[rows[row][1]]
        add("label_errors", row)
        row = next(train)
        rows[row] = f"{rows[row][0]} {personal(rng)}", rows[row][1]
        add("personal_data", row)
        row = next(train)
        rows[row] = outlier(rng), rows[row][1]
        add("outliers", row)
        row = next(n for n in train if rows[n][1] == "other")
        rows[row] = f"{rows[row][0]} kx17", "other"
        add("giveaways", row)
    return truth


def personal(rng: random.Random) -> str:
    """A made-up e-mail address, phone number, card number (of a test range), IBAN example or IP address."""
    number = rng.randrange(10**6, 10**7)
    return rng.choice(
        (
            f"Write to user{number}@example.com",
            f"Call +1 415 {str(number)[:3]} {str(number)[3:]}",
            "My card is 4111 1111 1111 1111",
            "My account is GB82 WEST 1234 5698 7654 32",
            f"My address is 10.20.{number % 255}.{number % 251}",
        )
    )


def outlier(rng: random.Random) -> str:
    """A text of another kind: hexadecimal, punctuation, a table of numbers, or one word many times."""
    return rng.choice(
        (
            f"{rng.getrandbits(900):0225x}",
            "".join(rng.choices("#$%&*+/<=>@^|~-_ ", k=120)),
            " ".join(str(rng.randrange(10**5)) for _ in range(60)),
            rng.choice(("buy ", "sale ", "now ", "free ")) * rng.randrange(1_000, 3_000),
        )
    )


def parts_of(rows: list[Row]) -> list[Part]:
    """The three splits as parts."""
    parts, start = [], 0
    for name, size in SPLITS.items():
        texts, labels = zip(*rows[start : start + size], strict=True)
        table = pa.table({"text": texts, "label": labels})
        parts.append(Part(name, [table.slice(n, 2_048) for n in range(0, size, 2_048)], name))
        start += size
    return parts


def measure(model_rows: int, seed: int) -> None:
    """Print the table of precision and recall."""
    rng = random.Random(seed)
    rows = reviews(ROWS, rng)
    truth = plant(rows, rng)
    params = InspectParams(base=BASE, model=bool(model_rows), model_rows=model_rows or 1)
    with tempfile.TemporaryDirectory() as folder:
        _, statistics, found = build_report("planted", parts_of(rows), params, Path(folder))
    by_kind = {kind: set(positions.tolist()) for kind, positions in found}
    seen = set(range(ROWS))
    if 0 < model_rows < ROWS:
        from raypath.components.inspection.findings.model import chosen_rows

        seen = set(chosen_rows(statistics, model_rows, 0).tolist())
    print("| fault | rows | found | precision | recall |\n| --- | --- | --- | --- | --- |")
    for kind, planted in truth.items():
        wanted = planted & seen if kind == "label_errors" else planted
        got = by_kind.get(kind, set())
        if kind == "label_errors" and not model_rows:
            continue
        hits = len(got & wanted)
        print(f"| {kind} | {len(wanted)} | {len(got)} | {hits / max(len(got), 1):.2f} | {hits / len(wanted):.2f} |")


def timed(number: int) -> None:
    """Print the time of the processor and the most memory for `number` rows."""
    rng = random.Random(0)
    rows = reviews(ROWS, rng)
    words = [text.split() for text, _ in rows]

    def tables() -> Iterator[pa.Table]:
        for start in range(0, number, 2_048):
            size = min(2_048, number - start)
            chosen = [rng.randrange(ROWS) for _ in range(size)]
            texts = [" ".join(rng.sample(words[n], len(words[n]))) for n in chosen]
            yield pa.table({"text": texts, "label": [rows[n][1] for n in chosen]})

    spent = time.process_time()
    for _ in tables():
        pass
    making = time.process_time() - spent
    rng.seed(0)
    begin, spent = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        report, _, _ = build_report("made up", [Part("rows", tables())], InspectParams(base=BASE), Path(folder))
    spent = time.process_time() - spent - making
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{report.rows:,} rows: {spent:.1f} s of processor time, {time.perf_counter() - begin:.1f} s, {peak:,} MiB")


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--model", type=int, default=0)
    options.add_argument("--time", type=int, default=0)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args(sys.argv[1:])
    timed(given.time) if given.time else measure(given.model, given.seed)
