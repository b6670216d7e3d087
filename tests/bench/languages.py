"""An English and the multilingual base on texts in another language: `python -m tests.bench.languages ROWS.csv`.

ROWS.csv has the columns text and label, such as `python -m tests.bench.chinese_reviews SDIST` writes. Options as
key=value: rows (2000), seeds (3), bases (english,multilingual; auto takes the one that `configure` chooses), prefix
(text before every row, such as "query: "), settings (of finetune, as JSON; what is not set follows from the data),
threads (0: all). The steps are those of text_classification. Prints the accuracy on the test split, the seconds of
training, and the tokens of a row.
"""

from __future__ import annotations

import csv
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from raypath.components.configure import configure
from raypath.components.data.tokenization.tokenizer import TextTokenizer, tokenizer_folder
from raypath.components.extract import ExtractParams, extract
from raypath.components.finetune import finetune
from raypath.components.inference.batch.scoring import score
from raypath.components.models.conversion.packaged import MULTILINGUAL
from raypath.components.models.metadata import read_metadata
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split
from raypath.components.tasks.catalog import load_task
from raypath.components.training.params import FinetuneParams
from tests.bench.reviews import BASE
from tests.bench.sweep import context, settled

BASES = {"english": BASE, "multilingual": MULTILINGUAL, "auto": "auto"}
OPTIONS: dict[str, Any] = {"rows": 2000, "seeds": 3, "threads": 0, "prefix": "", "settings": "{}"}
OPTIONS |= {"bases": "english,multilingual"}


def drawn(source: Path, target: Path, rows: int, prefix: str) -> Path:
    """Write a random sample of rows, the same for all seeds."""
    with open(source, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    random.Random(0).shuffle(found)
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([prefix + row["text"], row["label"]] for row in found[:rows])
    return target


def trained(folder: Path, rows: Path, params: FinetuneParams, seed: int) -> tuple[float, float]:
    """Fine-tune a base; return the accuracy on the test split and the seconds of training."""

    def run(step: Any, *inputs: Any) -> Any:
        ctx = context(folder, step.name, seed)
        return settled(ctx, step.fn(ctx, *inputs))

    parts = run(split, run(read, ReadParams(uri=str(rows))), SplitParams(valid=0.1, test=0.25))
    chosen = run(configure, parts, params, PreprocessParams())
    encoded = run(preprocess, parts, PreprocessParams(), chosen.inputs)
    encoded = run(extract, encoded, ExtractParams.of(params), chosen.finetune)
    began = time.perf_counter()
    model = run(finetune, encoded.train, encoded.valid, chosen.finetune, params)
    seconds = time.perf_counter() - began
    print(f"    {chosen.inputs.values} {chosen.finetune.values}", flush=True)
    task = load_task(read_metadata(Path(model.uri)))
    targets, outputs = score(Path(model.uri), encoded.test, os.cpu_count() or 1, lambda *_: None)
    return float(task.metrics(targets, task.decode(outputs))["accuracy"]), seconds


def main(source: Path, given: dict[str, Any]) -> None:
    """Train every base with every seed."""
    with tempfile.TemporaryDirectory(prefix="raypath-bench-") as place:
        rows = drawn(source, Path(place) / "rows.csv", given["rows"], given["prefix"])
        with open(rows, encoding="utf-8", newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
        names = given["bases"].split(",")
        found: dict[str, list[float]] = {name: [] for name in names}
        for seed in range(given["seeds"]):
            for name in names:
                params = FinetuneParams(base=BASES[name], threads=given["threads"], **json.loads(given["settings"]))
                accuracy, seconds = trained(Path(place) / f"{name}-{seed}", rows, params, seed)
                found[name].append(accuracy)
                print(f"{name:13} seed {seed}  accuracy {accuracy:.3f}  {seconds:6.0f} s", flush=True)
        for name in names:
            print(f"{name:13} mean {mean(found[name]):.3f} of {given['seeds']} seeds", flush=True)
            if name != "auto":
                tokens = TextTokenizer(tokenizer_folder(BASES[name]), 512).encode(texts)
                print(f"{name:13} {mean(map(len, tokens)):.0f} tokens a row", flush=True)


if __name__ == "__main__":
    chosen = dict(pair.split("=", 1) for pair in sys.argv[2:])
    main(Path(sys.argv[1]), {key: type(value)(chosen.get(key, value)) for key, value in OPTIONS.items()})
