"""Encrypted predictions, one text a request: `python -m tests.bench.encrypted_predictions [--requests N]`.

A classifier of 10 classes on the 384 features of all-MiniLM-L6-v2 (a logistic regression to clusters of the sample
reviews) is served by a process of its own. Another process encrypts the features of reviews, sends them over HTTP on
loopback and decrypts the scores. Prints CPU time of the server's whole process a request, latency, bytes, and how often
the class with the highest score is that of the plain head.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.bench.reviews import BASE
from tests.bench.tables import markdown

CLASSES, FITTED_ROWS, WARM_UP = 10, 200, 10
CLOSE = 1e-4
"""Difference of the two highest scores below which another class may be found."""
BYTES = {"content-type": "application/octet-stream"}


def build(folder: Path, base: str, texts: Sequence[str], classes: int) -> Any:
    """Write a model whose head is fitted to clusters of the texts' features; return the client's encoder."""
    import torch
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression

    from raypath.components.homomorphic.encoder import Encoder
    from raypath.components.homomorphic.model_head import encoder_digest
    from raypath.components.models.base_models import TOKENIZER_COPY, base_folder, build_model, tokenizer_digest
    from raypath.components.models.heads.pooling_layer import append_pooling, output_layer
    from raypath.components.models.metadata import ModelMetadata, write_metadata

    labels = tuple(f"cluster {n}" for n in range(classes))
    model = build_model("AutoModelForSequenceClassification", str(base_folder(base)), labels, None)
    append_pooling(model)
    model.save_pretrained(folder)
    for pattern in TOKENIZER_COPY:
        for path in base_folder(base).glob(pattern):
            (folder / path.name).write_bytes(path.read_bytes())
    metadata = ModelMetadata(task="text_classification", labels=labels, max_length=128)
    write_metadata(folder, metadata)
    encoder = Encoder(base, metadata, encoder_digest(folder), tokenizer_digest(folder))
    features = encoder.features(texts)
    clusters = KMeans(classes, n_init=1, random_state=0).fit_predict(features)
    fitted = LogisticRegression(max_iter=500).fit(features, clusters)
    layer = output_layer(model)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.coef_))
        layer.bias.copy_(torch.from_numpy(fitted.intercept_))
    model.save_pretrained(folder)
    return encoder


def serve(folder: Path) -> None:
    """Serve the model until standard input ends; print URL on standard output."""
    from raypath.components.core.artifacts import Model
    from raypath.components.models.metadata import read_metadata
    from tests.components.serving.server import LIMITS, served, service_of

    known = read_metadata(folder)
    model = Model(
        uri=str(folder), digest="m", task=known.task, base="b", labels=known.labels, max_length=known.max_length
    )
    settings = LIMITS.model_copy(update={"encrypted": True, "max_body": 2_000_000})
    with served(service_of({"m": model}, settings)) as url:
        print(url, flush=True)
        sys.stdin.read()


@contextmanager
def server_of(folder: Path) -> Iterator[tuple[str, Any]]:
    """URL and psutil process of a server of its own while the block runs."""
    import psutil

    command = [sys.executable, "-m", "tests.bench.encrypted_predictions", "--serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise SystemExit("the server did not start; its error is above")
            yield url, psutil.Process(process.pid)
        finally:
            process.stdin.close()
            process.wait(30)


def measure(folder: Path, features: Any) -> dict[str, float]:
    """Send one request for each row of features, float32 [N, H], after `WARM_UP` others; return what was measured."""
    from raypath.components.homomorphic.client_keys import ClientKeys
    from raypath.components.homomorphic.model_head import read_head
    from raypath.components.homomorphic.wire import RESULT_BYTES

    head, keys = read_head(folder), ClientKeys()
    packing, path = head.packing(1), f"/encrypted/predict?version=1&keys={keys.digest}&texts=1"
    scores, latency, client, up, down = [], [], [], 0, 0
    with server_of(folder) as (url, server), httpx.Client(base_url=url, headers=BYTES, timeout=60) as http:
        http.post("/encrypted/keys", content=keys.evaluation).raise_for_status()
        for body in [keys.encrypt(features[:1], packing)] * WARM_UP:
            http.post(path, content=body).raise_for_status()
        before = server.cpu_times()
        for row in features:
            began = time.perf_counter()
            body = keys.encrypt(row[None], packing)
            sent = time.perf_counter()
            response = http.post(path, content=body).raise_for_status()
            received, data = time.perf_counter(), response.content
            results = [data[n : n + RESULT_BYTES] for n in range(0, len(data), RESULT_BYTES)]
            scores.append(keys.decrypt(results, packing, 1)[0])
            latency.append(received - sent)
            client.append(time.perf_counter() - received + sent - began)
            up, down = len(body), len(data)
        after = server.cpu_times()
    plain = features.astype(np.float64) @ head.weight.T + head.bias
    cpu = after.user + after.system - before.user - before.system
    p50, p99 = np.quantile(latency, (0.5, 0.99))
    return {
        "requests": len(features),
        "server CPU, ms": 1e3 * cpu / len(features),
        "latency p50, ms": 1e3 * float(p50),
        "latency p99, ms": 1e3 * float(p99),
        "client, ms": 1e3 * float(np.median(client)),
        "bytes up": up,
        "bytes down": down,
        **agreement(plain, np.array(scores)),
    }


def agreement(plain: Any, found: Any) -> dict[str, float]:
    """Compare scores, float64 [N, K]: equal classes, rows whose two highest scores are close, largest difference."""
    highest = np.sort(plain, axis=1)
    return {
        "argmax equal": int((plain.argmax(axis=1) == found.argmax(axis=1)).sum()),
        "close rows": int((highest[:, -1] - highest[:, -2] < CLOSE).sum()),
        "largest error": float(np.abs(plain - found).max()),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.encrypted_predictions")
    parser.add_argument("--requests", type=int, default=500, help="default 500, at most 1,000")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.serve:
        serve(chosen.serve)
        return
    from raypath.components.data.sources.samples import load_sample, sample_files

    train, test = (load_sample(path)["review"].to_pylist() for path, _ in sample_files("sample://reviews"))
    with tempfile.TemporaryDirectory(prefix="raypath-bench-") as place:
        encoder = build(Path(place) / "model", BASE, train[:FITTED_ROWS], CLASSES)
        found = measure(Path(place) / "model", encoder.features(test[: chosen.requests]))
    print(json.dumps(found))
    print(markdown([{name: f"{value:.4g}" if value < 100 else f"{value:,.0f}" for name, value in found.items()}]))


if __name__ == "__main__":
    main()
