"""What needs no server, each in a process of its own: `python -m tests.bench.direct JOB GIVEN.json OUT.json`.

`setup` makes the model and the texts; `offline` is the limit of what a server can do with them; `bare` is the least
that one text takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Dataset, Model, Report
from tests.bench.servers import BATCH, LENGTH, Setup

PRECISIONS: dict[str, dict[str, Any]] = {"offline": {}}
"""Name in the table -> what the Engine is given beside the folder and the threads."""


def setup(given: dict[str, Any]) -> dict[str, Any]:
    """A classifier of reviews, fine-tuned on a few hundred of them unless one is given, and texts of the test part.

    The model is served in the precision that `register` would choose for it on the validation part.
    given: folder, model ("" makes one), rows to train on, texts (their number), threads, serve, precision, device.
    """
    import pyarrow.parquet as pq

    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.inference.engine import Engine
    from tests.bench.reviews import prepare

    folder, threads = Path(given["folder"]), given["threads"]
    spec = prepare(folder, given["rows"], threads)
    place = _in_its_precision(given["model"] or _fine_tuned(spec), spec, given["precision"])
    found = pq.read_table(spec.test.uri, columns=["text"])["text"].to_pylist()
    texts = [text for text, _ in zip(cycle(found), range(given["texts"]), strict=False)]
    engine = Engine(Path(place), threads)
    rows = engine.task.decode(engine.record(TextTokenizer(Path(place), LENGTH).encode(texts)))
    names = model_artifact(Path(place)).labels
    labels = [names[n] for n in rows.argmax(axis=1)]
    made = Setup(
        folder=str(folder),
        model=place,
        texts=texts,
        labels=labels,
        test=spec.test,
        threads=threads,
        device=given.get("device", "cpu"),
        serve=given["serve"],
    )
    return made.model_dump(mode="json")


def _fine_tuned(spec: Any) -> str:
    """One epoch by the component."""
    from raypath.components.finetune import ResolvedParams, finetune

    ctx = spec.context("finetune")
    params = ResolvedParams(base=spec.base, epochs=1, frozen_layers=2, threads=spec.threads)
    return finetune.fn(ctx, spec.train, spec.valid, None, params).finalized(str(ctx.out), "").uri


def _in_its_precision(model: str, spec: Any, wanted: Any) -> str:
    """The folder as the step `register` makes it, with its precision measured unless one is wanted; or as it is, where
    its precision was settled before."""
    from raypath.components.inference.backends.precision_config import usable_precision
    from raypath.components.inference.precision_selection import prepare
    from raypath.components.register import RegisterParams

    if wanted == "auto" and usable_precision(Path(model), "cpu"):
        return model

    out = Path(spec.folder) / "registered"
    tolerance = RegisterParams().tolerance
    found = prepare(Path(model), out, spec.valid, spec.threads, wanted, tolerance, "macro_f1")
    return str(out) if found else model


def model_artifact(folder: Path) -> Model:
    """The artifact that `finetune` would hand over for this folder."""
    from raypath.components.core.files import files_digest
    from raypath.components.models.metadata import read_metadata

    metadata = read_metadata(folder)
    facts = metadata.model_dump(include={"task", "base", "labels", "label_kind", "max_length"})
    return Model(uri=str(folder), digest=files_digest(folder.iterdir()), **facts)


def report_of(model: Model, test: Dataset) -> Report:
    """As if it had been measured: the registry wants a figure."""
    return Report(model=model, data=test, metrics={"macro_f1": 0.5})


def offline(given: dict[str, Any]) -> dict[str, Any]:
    """Rows a second of TextTokenizer and Engine, 32 texts at a time, in every precision."""
    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.inference.engine import Engine

    own = Setup.model_validate_json(json.dumps(given["setup"]))
    tokenizer = TextTokenizer(Path(own.model), LENGTH)
    found = {}
    for name, more in PRECISIONS.items():
        engine = Engine(Path(own.model), own.threads, **more)
        engine.record(tokenizer.encode(own.texts[: 2 * BATCH]))
        done, began = 0, time.perf_counter()
        for first in cycle(range(0, len(own.texts), BATCH)):
            done += len(engine.record(tokenizer.encode(own.texts[first : first + BATCH])))
            if (took := time.perf_counter() - began) >= given["seconds"]:
                break
        found[name] = {"requests_s": done / took, "answered": done, "seconds": took, "errors": {}}
    return found


def bare(given: dict[str, Any]) -> dict[str, Any]:
    """Median ms of one text: by transformers in fp32, and by our TextTokenizer and Engine."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.inference.engine import Engine
    from tests.bench.load import percentile

    own = Setup.model_validate_json(json.dumps(given["setup"]))
    torch.set_num_threads(own.threads)
    theirs = AutoTokenizer.from_pretrained(own.model)
    model = AutoModelForSequenceClassification.from_pretrained(own.model).to(own.device).eval()
    engine, tokenizer = Engine(Path(own.model), own.threads), TextTokenizer(Path(own.model), LENGTH)

    def plain(text: str) -> None:
        with torch.inference_mode():
            given = theirs(text, truncation=True, max_length=LENGTH, return_tensors="pt").to(own.device)
            model(**given).logits.tolist()

    def ours(text: str) -> None:
        engine.record(tokenizer.encode([text])).tolist()

    found = {}
    for name, ask in {"bare transformers": plain, "bare engine": ours}.items():
        taken = _times(ask, own.texts, given["seconds"] / 2)
        found[name] = {"p50_ms": 1e3 * percentile(taken, 0.5), "p99_ms": 1e3 * percentile(taken, 0.99)}
    return found


def _times(ask: Callable[[str], None], texts: list[str], seconds: float) -> list[float]:
    for text in texts[:16]:
        ask(text)
    taken, end = [], time.perf_counter() + seconds
    for text in cycle(texts):
        began = time.perf_counter()
        if began >= end:
            break
        ask(text)
        taken.append(time.perf_counter() - began)
    return taken


JOBS = {"setup": setup, "offline": offline, "bare": bare}


if __name__ == "__main__":
    job, given_path, out = sys.argv[1:]
    answer = JOBS[job](json.loads(Path(given_path).read_text(encoding="utf-8")))
    Path(out).write_text(json.dumps(answer), encoding="utf-8")
