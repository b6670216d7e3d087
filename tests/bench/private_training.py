"""Accuracy and membership inference with differential privacy: `python -m tests.bench.private_training OUT [options]`.

For two sets of texts from installed packages, for a head and for LoRA adapters, and for epsilon 1, 3, 8 and none: train
with each candidate of settings, choose one by its accuracy on validation rows, and measure the chosen model once, on
test rows and by membership inference. What the search spends is not a part of epsilon: it is made for the measurement.
Results are appended to OUT, a file with a line of JSON each; what is there already is not measured again. Accuracy does
not depend on the load of the machine, seconds do. `--rows`, `--sets` and `--methods` make it shorter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Splits
from raypath.components.training.differential_privacy.accountant import check_installed
from raypath.components.training.params import FinetuneParams
from tests.bench.reviews import BASE
from tests.bench.sweep import context, own_ray, settled
from tests.bench.tables import markdown, say

SETS = ("reviews", "tweets")
"""Reviews of food, two classes; posts of one account by the device that they were sent from, three classes."""
DEVICES = ("Twitter Web Client", "Twitter for Android", "Twitter for iPhone")
EPSILONS = (1.0, 3.0, 8.0, None)
MOST_SCORED = 1_000
"""Validation rows, and test rows, at most; with few training rows as many as those."""


def candidates(method: str, private: bool) -> list[dict[str, Any]]:
    """Return the settings among which validation rows choose."""
    if method == "head":
        rates = (1e-3, 3e-3, 1e-2) if private else (3e-4, 1e-3, 3e-3)
        return [{"method": "head", "epochs": epochs, "lr": lr} for epochs in (20, 60) for lr in rates]
    epochs, pair = (10, (1e-3, 3e-3)) if private else (3, (3e-4, 1e-3))
    return [{"method": "full", "lora": 8, "epochs": epochs, "lr": lr} for lr in pair]


def prepared(folder: Path, name: str, rows: int) -> dict[str, Splits]:
    """Read, split, tokenize and extract the features of a set, with `rows` training rows, 0 for all; by method."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from raypath.components.data.sources.samples import load_sample, sample_files
    from raypath.components.extract import ExtractParams, extract
    from raypath.components.preprocess import PreprocessParams, preprocess
    from raypath.components.read import ReadParams, read
    from raypath.components.split import SplitParams, split

    text, label = {"reviews": ("review", "score"), "tweets": ("text", "source")}[name]
    tables = [load_sample(path).select([text, label]) for path, _ in sample_files(f"sample://{name}")]
    table = pa.concat_tables([each.cast(pa.schema([(text, pa.string()), (label, pa.string())])) for each in tables])
    if name == "tweets":
        table = table.filter(pc.is_in(table[label], pa.array(DEVICES)))
    place = folder / name
    place.mkdir()
    scored = min(rows or MOST_SCORED, MOST_SCORED)
    kept = _shuffled(table).slice(0, rows + 2 * scored if rows else len(table))
    pq.write_table(kept, place / "rows.parquet")

    def made(step: Any, *given: Any) -> Any:
        ctx = context(folder, f"{name}-{step.name}", 0)
        return settled(ctx, step.fn(ctx, *given))

    data = made(read, ReadParams(uri=str(place / "rows.parquet"), text=text, label=label))
    parts = made(split, data, SplitParams(valid=scored / len(kept), test=scored / len(kept)))
    parts = made(preprocess, parts, PreprocessParams(max_length=128).using(BASE))
    return {"lora": parts, "head": made(extract, parts, ExtractParams(base=BASE, method="head"))}


def _shuffled(table: Any) -> Any:
    import numpy as np

    return table.take(np.random.default_rng(0).permutation(len(table)))


def trained(
    folder: Path, name: str, splits: Splits, settings: dict[str, Any], epsilon: float | None
) -> tuple[Path, dict[str, float]]:
    """Train with some settings; return the model's folder, and its accuracy on validation rows, epsilon and seconds."""
    from raypath.components.finetune import finetune
    from raypath.components.models.metadata import read_metadata

    params = FinetuneParams(base=BASE, patience=0, frozen_layers=0, warmup=0.0).override(
        settings | ({"privacy.epsilon": epsilon} if epsilon else {})
    )
    # A home of its own: the ledger would add up the trainings of the search.
    ctx = replace(context(folder, name, 0), signing=folder / name / "home" / "signing")
    began = time.perf_counter()
    model = finetune.fn(ctx, splits.train, splits.valid, None, params)
    seconds = time.perf_counter() - began
    out = Path(settled(ctx, model).uri)
    record = read_metadata(out).privacy
    spent = {"epsilon": record.epsilon} if record else {}
    return out, {"valid": model.metrics["accuracy"], "seconds": seconds, **spent}


def accuracy(folder: Path, splits: Splits) -> float:
    """Return the share of test rows whose class a model predicts."""
    from raypath.components.inference.batch.scoring import score
    from raypath.components.models.metadata import read_metadata
    from raypath.components.tasks.catalog import load_task

    targets, outputs = score(folder, splits.test, 1)
    task = load_task(read_metadata(folder))
    return float(task.metrics(targets, task.decode(outputs))["accuracy"])


def measured(folder: Path, splits: Splits, method: str, epsilon: float | None) -> dict[str, Any]:
    """Choose settings by validation rows; return the measurements of the chosen model, on test rows too."""
    found = []
    for number, settings in enumerate(candidates(method, epsilon is not None)):
        out, facts = trained(folder, f"{folder.name}-{number}", splits, settings, epsilon)
        found.append((facts["valid"], -number, out, settings, facts))
        say(f"  {settings} {facts}")
    *_, out, settings, facts = max(found, key=lambda each: each[:2])
    return {"settings": settings, **facts, "test": accuracy(out, splits), **attacked(out, splits)}


def attacked(folder: Path, splits: Splits) -> dict[str, float]:
    """Return the metrics of membership inference against a model."""
    from raypath.components.inference.batch.membership import membership_metrics
    from raypath.components.inference.evaluation_engine import evaluation_engine

    engine = evaluation_engine(folder, 1, splits.test.rows, folder.parent)
    return membership_metrics(folder, engine, splits.train, splits.test, 1, 0)


def table(lines: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """Return one row a set, method and bound."""
    return [
        {
            "set": line["set"],
            "rows": f"{line['rows']:,}",
            "trained": line["method"],
            "epsilon": "none" if line["bound"] is None else f"{line['bound']:g}",
            "accuracy": f"{line['test']:.3f}",
            "AUC, loss": f"{line['membership_auc']:.3f}",
            "AUC, LiRA": f"{line['membership_lira_auc']:.3f}" if "membership_lira_auc" in line else "",
        }
        for line in lines
    ]


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.private_training")
    parser.add_argument("out", type=Path, help="file of results")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=("head", "lora"), default=["head", "lora"])
    parser.add_argument("--rows", type=int, default=3_000, help="training rows; default 3,000, 0 for all")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is not in the file of results, then print the table."""
    chosen = options(words)
    check_installed()
    known = [json.loads(line) for line in chosen.out.read_text().splitlines()] if chosen.out.exists() else []
    with own_ray() as folder:
        for name in chosen.sets:
            made = prepared(folder, name, chosen.rows)
            for method in chosen.methods:
                splits = made[method]
                for bound in EPSILONS:
                    case = {"set": name, "method": method, "bound": bound, "rows": splits.train.rows}
                    if any(case.items() <= line.items() for line in known):
                        continue
                    say(json.dumps(case))
                    place = folder / f"{name}-{method}-{bound}"
                    place.mkdir()
                    known.append(case | measured(place, splits, method, bound))
                    with chosen.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(known[-1]) + "\n")
    print(markdown(table(known)))


if __name__ == "__main__":
    main()
