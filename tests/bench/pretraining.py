"""Does pre-training on one's own texts help? `python -m tests.bench.pretraining --help`.

The sample reviews with MiniLM. For every seed a few reviews of the train part are drawn as the labelled ones, and the
same fine-tuning is done twice: from MiniLM as it is, and from MiniLM after some epochs of masked pre-training on the
texts of the whole train part. Both are measured on the whole test part, whose texts are left out of pre-training.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Dataset, Model, Splits
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.pretrain import PretrainParams, pretrain
from tests.bench.reviews import BASE, Spec, context, prepare
from tests.bench.tables import markdown

FIGURES = ("accuracy", "macro_f1", "log_loss")
PLAIN, FURTHER = "MiniLM as it is", "pre-trained further"
ALL = 1_000_000


def options(args: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="repetitions, each with its own rows and rng")
    parser.add_argument("--rows", type=int, default=500, help="labelled rows to fine-tune on; 0 takes all of train")
    parser.add_argument("--texts", type=int, default=0, help="texts to pre-train on; 0 takes all of train")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of pre-training")
    parser.add_argument("--lr", type=float, default=PretrainParams().lr, help="its learning rate")
    parser.add_argument("--mask", type=float, default=0.15, help="share of the tokens that are hidden")
    parser.add_argument("--finetune-epochs", type=int, default=3, help="epochs of fine-tuning")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(args)


def compare(spec: Spec, chosen: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Both fine-tunings of one seed, as lines of a table."""
    labelled = some(spec.train, chosen.rows or ALL, seed, Path(spec.folder) / f"labelled-{seed}")
    started = time.perf_counter()
    start = further(spec, chosen, seed)
    took = time.perf_counter() - started
    lines = []
    for name, model in ((PLAIN, None), (FURTHER, start)):
        started = time.perf_counter()
        found = fine_tuned(spec, labelled, chosen, seed, model)
        seconds = time.perf_counter() - started + (took if model else 0.0)
        perplexity = {"perplexity": round(start.metrics["perplexity"], 2) if model else ""}
        lines.append({"start": name, "seed": seed, **found, **perplexity, "seconds": round(seconds)})
    return lines


def further(spec: Spec, chosen: argparse.Namespace, seed: int) -> Model:
    """MiniLM after more pre-training."""
    texts = some(spec.train, chosen.texts or ALL, seed, Path(spec.folder) / f"texts-{seed}")
    params = PretrainParams(base=BASE, epochs=chosen.epochs, lr=chosen.lr, mask=chosen.mask, threads=chosen.threads)
    ctx = context(Path(spec.folder), f"pretrain-{seed}", chosen.threads, seed=seed)
    held_out = Splits(train=spec.train, valid=spec.valid, test=spec.test)
    return pretrain.fn(ctx, texts, spec.valid, params, held_out).finalized(str(ctx.out), "")


def fine_tuned(
    spec: Spec, labelled: Dataset, chosen: argparse.Namespace, seed: int, start: Model | None
) -> dict[str, float]:
    """Figures on the test part."""
    kind = "further" if start else "plain"
    params = ResolvedParams(base=BASE, epochs=chosen.finetune_epochs, frozen_layers=2, threads=chosen.threads)
    ctx = context(Path(spec.folder), f"finetune-{kind}-{seed}", chosen.threads, seed=seed)
    model = finetune.fn(ctx, labelled, spec.valid, None, params, start).finalized(str(ctx.out), "")
    ctx = context(Path(spec.folder), f"evaluate-{kind}-{seed}", chosen.threads, seed=seed)
    report = evaluate.fn(ctx, model, spec.test, EvaluateParams(resamples=0, plots=False))
    return {name: round(report.metrics[name], 4) for name in FIGURES}


def some(part: Dataset, rows: int, seed: int, folder: Path) -> Dataset:
    """At most `rows` rows of a part, drawn by lot."""
    import numpy as np
    import pyarrow.parquet as pq

    if rows >= part.rows:
        return part
    table = pq.read_table(part.uri)
    folder.mkdir()
    pq.write_table(table.take(np.random.default_rng(seed).permutation(len(table))[:rows]), folder / "part-0.parquet")
    return part.model_copy(update={"uri": str(folder), "rows": rows})


def summary(lines: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Mean and standard deviation over the seeds, and of the difference within a seed."""
    table = []
    by_start = {name: [line for line in lines if line["start"] == name] for name in (PLAIN, FURTHER)}
    for name, found in by_start.items():
        table.append({"start": name, **{f: _spread([line[f] for line in found], "") for f in FIGURES}})
    pairs = list(zip(by_start[PLAIN], by_start[FURTHER], strict=True))
    table.append({"start": "difference", **{f: _spread([b[f] - a[f] for a, b in pairs], "+") for f in FIGURES}})
    return table


def _spread(values: list[float], sign: str) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.4f} ± {deviation:.4f}"


def main(args: list[str] | None = None) -> None:
    """Compare, printing a line a training and the tables at the end."""
    chosen, lines = options(args), []
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="raypath-pretraining-") as place:
        spec = prepare(Path(place), ALL, chosen.threads)
        for seed in range(chosen.seeds):
            for line in compare(spec, chosen, seed):
                lines.append(line)
                print(line, flush=True)
    texts = min(chosen.texts or ALL, spec.train.rows)
    print(f"\n{chosen.rows or spec.train.rows} labelled rows, {texts} texts, {chosen.epochs} epochs of pre-training\n")
    print(markdown(lines), "", markdown(summary(lines)), sep="\n")


if __name__ == "__main__":
    main()
