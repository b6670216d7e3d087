"""Engines of generation without a server: `python -m tests.bench.generate_offline --help`.

Tokens a second with 1, 8 and 32 requests at a time, in turns, the median of the rounds; and of reading the prompts, the
tokens a second of 8 requests for one token. All prompts begin differently, so that no prefix cache helps. llama.cpp
(llama-cpp-python, where it is installed and `--gguf` names a file) answers one request at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.errors import RaypathError
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.openvino_genai.engine import OpenVinoGenaiEngine
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.models.base_models import base_folder
from raypath.components.models.conversion.packaged import CHAT
from raypath.components.models.process import configure_process

ENGINES = ("transformers", "openvino-bf16", "openvino-fp32", "openvino-int8", "llama.cpp")
AT_A_TIME, PROMPTS_READ = (1, 8, 32), 8
Run = Callable[[Sequence[list[int]], int], int]
"""Generates a number of tokens for each prompt, and returns the tokens of all."""


def prompts(count: int, length: int, vocabulary: int, rng: np.random.Generator) -> list[list[int]]:
    """Random tokens: a forward pass takes as long as for text."""
    return rng.integers(100, vocabulary - 100, (count, length)).tolist()


def open_run(name: str, folder: Path, threads: int, gguf: str) -> Run:
    """Open an engine. Raises RaypathError for one that is not there."""
    if name == "llama.cpp":
        return _llama(gguf, threads)
    kind, _, precision = name.partition("-")
    engine: Any
    if kind == "transformers":
        engine = TransformersEngine.open(folder, device="cpu")
    else:
        chosen: Any = precision
        engine = OpenVinoGenaiEngine.open(folder, chosen, threads, serving=False)

    def run(requests: Sequence[list[int]], tokens: int) -> int:
        settings = SamplingSettings(max_new_tokens=tokens, ignore_stop=True)
        return sum(len(each.ids) for each in engine.generate(requests, settings))

    return run


def _llama(gguf: str, threads: int) -> Run:
    if not gguf or importlib.util.find_spec("llama_cpp") is None:
        raise RaypathError("llama.cpp needs --gguf FILE and the package llama-cpp-python")
    model = importlib.import_module("llama_cpp").Llama(gguf, n_ctx=4_096, n_threads=threads or None, verbose=False)

    def run(requests: Sequence[list[int]], tokens: int) -> int:
        made = 0
        for prompt in requests:
            model.reset()
            made += sum(1 for _ in itertools.islice(model.generate(prompt, temp=0.0), tokens))
        return made

    return run


def measured(runs: dict[str, Run], sizes: dict[str, int], vocabulary: int) -> dict[str, list[float]]:
    """Return for each engine the tokens a second at each number of requests, and of reading prompts."""
    rng = np.random.default_rng(0)
    found: dict[str, list[list[float]]] = {name: [[] for _ in (*AT_A_TIME, 0)] for name in runs}
    for run in runs.values():
        run(prompts(2, sizes["prompt"], vocabulary, rng), 4)
    for number in range(sizes["rounds"]):
        for column, count in enumerate((*AT_A_TIME, PROMPTS_READ)):
            for name, run in runs.items():
                requests, reads = prompts(count, sizes["prompt"], vocabulary, rng), column == len(AT_A_TIME)
                start = time.perf_counter()
                made = run(requests, 1 if reads else sizes["tokens"])
                seconds = time.perf_counter() - start
                found[name][column].append((count * sizes["prompt"] if reads else made) / seconds)
        print(f"round {number + 1} of {sizes['rounds']}", flush=True)
    return {name: [statistics.median(each) for each in columns] for name, columns in found.items()}


def table(figures: dict[str, list[float]], opened: dict[str, float]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield f"| engine | {' | '.join(f'{count} at a time' for count in AT_A_TIME)} | reading prompts | opened |"
    yield f"| --- | {' | '.join('---:' for _ in range(len(AT_A_TIME) + 2))} |"
    for name, values in figures.items():
        yield f"| {name} | {' | '.join(f'{value:,.0f}' for value in values)} | {opened[name]:.1f} s |"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default=CHAT, help="folder or URI of a decoder")
    options.add_argument("--engines", default=",".join(ENGINES), help="some of them, separated by commas")
    options.add_argument("--gguf", default="", help="the model for llama.cpp, of `raypath export --to gguf`")
    options.add_argument("--threads", type=int, default=0)
    options.add_argument("--prompt", type=int, default=116, help="tokens of a prompt")
    options.add_argument("--tokens", type=int, default=64, help="new tokens of a request")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    configure_process(given.threads)
    folder, runs, opened = base_folder(given.base), {}, {}
    for name in given.engines.split(","):
        start = time.perf_counter()
        with contextlib.suppress(RaypathError):
            runs[name] = open_run(name, folder, given.threads, given.gguf)
        if name not in runs:
            print(f"{name} is left out", flush=True)
        opened[name] = time.perf_counter() - start
    import transformers

    vocabulary = transformers.AutoConfig.from_pretrained(folder).vocab_size
    sizes = {"prompt": given.prompt, "tokens": given.tokens, "rounds": given.rounds}
    print("\n".join(table(measured(runs, sizes, vocabulary), opened)))


if __name__ == "__main__":
    main()
