"""Two nodes that share nothing but an S3 server: each writes shards of 140,000 rows, none has all; predictions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from raypath.components import Context, Model
from raypath.components.core.context import Tracking
from raypath.components.data.streaming.shard_cache import usage
from raypath.components.registry.client import mlflow_client
from raypath.components.registry.publish import publish
from raypath.components.tracking.tags import KEY
from raypath.deploy.execution.run_history import Run
from tests.chaos.cluster import Nodes
from tests.chaos.project import digests, end, last, nodes_apart, repository, start
from tests.deploy.store.s3 import BUCKET
from tests.tiny_classifier import tiny_classifier

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.getuid() != 0, reason="a mount of its own for each node needs root"),
]
ROWS, FILES, PREDICTED, LETTERS = 140_000, 4, 4_000, 490
"""Of random letters, so that the Parquet files have more than the 32 MiB that one process prepares."""
WORKFLOW = '''"""Read, split, inspect, tokenize and extract features."""

from raypath import Params, workflow
from raypath.components import Splits
from raypath.components.extract import ExtractParams, extract
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split


class Prepared(Params):
    """Five steps."""

    read: ReadParams = ReadParams()
    split: SplitParams = SplitParams()
    inspect: InspectParams = InspectParams()
    preprocess: PreprocessParams = PreprocessParams(max_length=128)
    extract: ExtractParams = ExtractParams(base="base", method="head", precision="fp32")


@workflow
def prepared(p: Prepared) -> Splits:
    """Prepare rows."""
    splits = split(read(p.read), p.split)
    inspect(splits, p.inspect)
    return extract(preprocess(splits, p.preprocess), p.extract)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "preparation.py").write_text(WORKFLOW)
    (tmp_path / "node").mkdir()
    (tmp_path / "rows").mkdir()
    for number in range(FILES):
        _write_rows(tmp_path / "rows" / f"{number}.csv", number)
    _write_rows(tmp_path / "few.csv", FILES, PREDICTED)
    return repository(tmp_path, "node/", "rows/", "model/", "scratch/", "few.csv")


def _write_rows(path: Path, seed: int, rows: int = ROWS // FILES) -> None:
    """Write rows of random words of six letters."""
    letters = np.random.default_rng(seed).integers(97, 123, (rows, LETTERS), dtype=np.uint8)
    letters[:, 6::7] = ord(" ")
    texts = (row.tobytes().decode().rstrip() for row in letters)
    path.write_text("text,label\n" + "".join(f"{text},{'ab'[n % 2]}\n" for n, text in enumerate(texts)))


def test_two_nodes_write_shards_and_share_only_a_bucket(folder: Path) -> None:
    """Also where neither has room for all shards: those used longest ago are removed, and fetched again."""
    own = {"ray.store": f"s3://{BUCKET}/p", "ray.home": folder / "node"}
    limit = {"RAYPATH_SHARD_CACHE": "40Mi", "RAYPATH_CACHE": str(folder / "node" / "models")}
    with nodes_apart(folder, **limit) as (nodes, s3, mlflow):
        apart = _prepare(folder, nodes, mlflow, own, s3)
        apart |= _predict(folder, nodes, mlflow, own, s3)
        written = {name: _cached(nodes, name, folder / "node") for name in ("one", "two")}
        worked = {name: _worked(nodes, name, folder / "node") for name in ("one", "two")}
        removed = [usage(_inside(nodes, name, folder / "node") / "shards") for name in ("one", "two")]
        together = _prepare(folder, nodes, mlflow, {"ray.home": folder / "shared"}, s3)
        together |= _predict(folder, nodes, mlflow, {"ray.home": folder / "shared"}, s3)
    assert apart == together
    assert {"read", "split", "inspect", "preprocess", "extract", "predict"} <= set(apart)
    assert written["one"] != written["two"], "each has the shards that its own tasks used last"
    assert {".parts", ".columns", ".attempts"} <= worked["one"] | worked["two"], "read, inspect, predict on other nodes"
    assert all(each is not None and each.removed for each in removed)


def _prepare(folder: Path, nodes: Nodes, mlflow: str, settings: dict[str, object], s3: str) -> dict[str, str]:
    """Prepare the rows; returns the digests of the steps."""
    chosen = {"read.uri": folder / "rows", "read.text": "text", "preprocess.tokenizer": "base", "ray.mlflow": mlflow}
    run = _run(folder, nodes, {**chosen, **settings}, "preparation:prepared", s3)
    report = run.step("inspect").artifact
    assert report is not None
    assert report["rows"] == ROWS, "an error in it would not have ended the run"
    return digests(run)


def _predict(folder: Path, nodes: Nodes, mlflow: str, settings: dict[str, object], s3: str) -> dict[str, str]:
    """Predict the first file with a registered model; returns the digest of the predictions."""
    chosen = {"read.uri": folder / "few.csv", "read.text": "text", "ray.mlflow": mlflow, "predict.scores": True}
    model = {"predict.model": f"models:/letters/{_register(folder, mlflow)}", "predict.batch": 512}
    return {"predict": digests(_run(folder, nodes, {**chosen, **model, **settings}, "batch_prediction", s3))["predict"]}


def _register(folder: Path, mlflow: str) -> int:
    """Register a model, once."""
    context = Context("register", folder / "out", folder / "scratch", tracking=Tracking(mlflow, "letters"))
    if not (folder / "model").is_dir():
        tiny_classifier(folder / "model", ("a", "b"))
    model = Model(uri=str(folder / "model"), task="text_classification", base="tiny", labels=("a", "b"), max_length=32)
    with mlflow_client(mlflow) as client:
        return publish(client, context, model, "letters", {KEY: "letters"}, lambda folder: None)


def _run(folder: Path, nodes: Nodes, settings: dict[str, object], workflow: str, s3: str) -> Run:
    end(start(folder, nodes, settings, workflow=workflow, AWS_ENDPOINT_URL=s3), seconds=1200)
    run = last(folder)
    assert {step.status for step in run.steps} == {"done"}
    return run


def _inside(nodes: Nodes, name: str, home: Path) -> Path:
    """A node's own folder, through the mount of its processes."""
    return Path(f"/proc/{nodes.nodes[name].pid}/root{home}")


def _cached(nodes: Nodes, name: str, home: Path) -> set[str]:
    """Names of the shards that a node has."""
    return {path.name for path in (_inside(nodes, name, home) / "shards").glob("*.parquet")}


def _worked(nodes: Nodes, name: str, home: Path) -> set[str]:
    """Folders that tasks left on a node which is not the step's own, whose folders are removed with the step's."""
    return {path.name for path in _inside(nodes, name, home).glob("scratch/*/.*")}
