"""Compare Raypath's default settings with a grid of settings on public sets of texts.

`sets` fetches the packages and writes the sets, `grid` trains the grid, `shipped` runs the workflow as it ships,
`table` prints the comparison. Each appends to the results in --out and leaves out what is there already, so that all
may be interrupted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Splits
from raypath.deploy.execution.overrides import from_line
from tests.bench.defaults.comparison import compare, describe
from tests.bench.defaults.grid import append, lines, points, prepare, run
from tests.bench.defaults.sets import SETS, write_set
from tests.bench.defaults.shipped import run_shipped
from tests.bench.tables import markdown, say


def options(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    summary = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.defaults", description=summary)
    parser.add_argument("what", choices=["sets", "grid", "shipped", "table"])
    parser.add_argument("--out", type=Path, required=True, help="folder for packages, sets and results")
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), help="sets; default all")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each setting; default 1")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of a training")
    parser.add_argument("--workflow", default="text_classification", help="workflow of `shipped`")
    parser.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="for `shipped`")
    return parser.parse_args(words)


def prepared(name: str, out: Path, threads: int) -> Splits:
    """Return the preprocessed splits of a set; written once."""
    folder = out / "prepared" / name
    made = folder / "splits.json"
    if not made.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        splits = prepare(out / "sets" / name, folder, SETS[name].max_length, threads=threads)
        made.write_text(splits.model_dump_json(), encoding="utf-8")
    return Splits.model_validate_json(made.read_text(encoding="utf-8"))


def shipped(chosen: argparse.Namespace, results: Path) -> None:
    """Run the workflow on each set with each seed, and append its line to `results`."""
    settings: dict[str, Any] = from_line(chosen.settings)
    done = {(line["set"], line["seed"]) for line in lines(results)}
    for seed in range(chosen.seeds):
        for name in chosen.only:
            if (name, seed) in done:
                continue
            with tempfile.TemporaryDirectory(prefix="raypath-bench-") as home:
                files = chosen.out / "sets" / name
                line = run_shipped(files, Path(home), settings | {"seed": seed}, chosen.workflow)
            append(results, {"set": name, **line})
            say(f"{name}, seed {seed}: accuracy {line['accuracy']:.4f}, {describe(line['chosen'])}")


def main() -> None:
    """Do one part of the comparison."""
    chosen = options()
    chosen.out = chosen.out.resolve()
    for name in chosen.only:
        write_set(SETS[name], chosen.out / "packages", chosen.out / "sets" / name)
    grid, own = chosen.out / "grid.jsonl", chosen.out / "shipped.jsonl"
    if chosen.what == "grid":
        ready = {name: prepared(name, chosen.out, chosen.threads) for name in chosen.only}
        run(ready, points(chosen.seeds), grid, chosen.threads)
    elif chosen.what == "shipped":
        shipped(chosen, own)
    elif chosen.what == "table":
        print(markdown(compare(lines(grid), lines(own))))


if __name__ == "__main__":
    main()
