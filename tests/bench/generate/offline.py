"""Raypath's engine without a server: `python -m tests.bench.generate.offline GIVEN.json OUT.json`.

The engine that the service opens, with the same requests, as many at a time as there are clients. It is the limit of
what a service can do with it. For each cell it takes the time that the clients would have.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.selection.opening import open_engine
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.models.process import configure_process
from tests.bench.generate.contenders import Setup
from tests.bench.generate.prompts import Cell, bodies
from tests.bench.load import percentile


def measure(engine: Any, template: ChatTemplate, cell: Cell, seed: int, seconds: float) -> dict[str, Any]:
    """Return the figures of a cell, as `client.figures`."""
    waiting = list(bodies(cell, cell.requests, seed))[::-1]
    prompts = [template.encode_prompt(body["messages"]) for body in waiting]
    settings = SamplingSettings(max_new_tokens=cell.tokens, ignore_stop=True, logprobs=False)
    began: dict[str, float] = {}
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    tokens: dict[str, int] = {}
    start, left = time.perf_counter(), 0
    while (prompts or left) and time.perf_counter() - start < seconds:
        while prompts and left < cell.clients:
            name = str(len(began))
            began[name], left = time.perf_counter(), left + 1
            engine.add(name, prompts.pop(), settings)
        for piece in engine.step():
            now, name = time.perf_counter(), piece.request_id
            first.setdefault(name, now)
            last[name], tokens[name] = now, tokens.get(name, 0) + len(piece.ids)
            left -= piece.finish is not None
    end = time.perf_counter()
    for name in began:
        engine.abort(name)
    while engine.has_work():
        engine.step()
    waits = [1e3 * (first.get(name, end) - when) for name, when in began.items()]
    gaps = [1e3 * (last[name] - first[name]) / (tokens[name] - 1) for name in first if tokens[name] > 1]
    return {
        "tokens_s": sum(tokens.values()) / (end - start),
        "first_p50_ms": percentile(waits, 0.5),
        "first_p95_ms": percentile(waits, 0.95),
        "token_ms": percentile(gaps, 0.5) if gaps else None,
        "tokens": sum(tokens.values()),
        "seconds": end - start,
        "errors": {},
    }


def main(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure all cells. given: setup, cells, seed, seconds."""
    setup = Setup(**given["setup"])
    configure_process(setup.threads)
    folder = Path(setup.registered)
    template, engine = ChatTemplate.load(folder), open_engine(folder, setup.threads)
    cells = [Cell(**each) for each in given["cells"]]
    measure(engine, template, Cell(clients=2, prompt=100, tokens=8), -1, 10.0)
    return [measure(engine, template, cell, given["seed"] + n, given["seconds"]) for n, cell in enumerate(cells)]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))), encoding="utf-8")
