"""Preparation of 320,000 rows by two nodes that share nothing but an S3 server: each writes shards, none has all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.chaos.cluster import Nodes
from tests.chaos.project import digests, end, last, nodes_apart, repository, start
from tests.deploy.store.s3 import BUCKET

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.getuid() != 0, reason="a mount of its own for each node needs root"),
]
ROWS, FILES = 320_000, 4
"""Of 210 random letters, so that the Parquet files have more than the 32 MiB that one process prepares."""
WORKFLOW = '''"""Read, split and tokenize."""

from raypath import Params, workflow
from raypath.components import Splits
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split


class Prepared(Params):
    """Three steps."""

    read: ReadParams = ReadParams()
    split: SplitParams = SplitParams()
    preprocess: PreprocessParams = PreprocessParams()


@workflow
def prepared(p: Prepared) -> Splits:
    """Prepare rows."""
    return preprocess(split(read(p.read), p.split), p.preprocess)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "preparation.py").write_text(WORKFLOW)
    (tmp_path / "node").mkdir()
    (tmp_path / "rows").mkdir()
    for number in range(FILES):
        _write_rows(tmp_path / "rows" / f"{number}.csv", number)
    return repository(tmp_path, "node/", "rows/")


def _write_rows(path: Path, seed: int) -> None:
    """Write rows of 30 random words of six letters."""
    letters = np.random.default_rng(seed).integers(97, 123, (ROWS // FILES, 210), dtype=np.uint8)
    letters[:, 6::7] = ord(" ")
    rows = (row.tobytes().decode().rstrip() for row in letters)
    path.write_text("text,label\n" + "".join(f"{row},{'ab'[n % 2]}\n" for n, row in enumerate(rows)))


def test_two_nodes_write_shards_and_share_only_a_bucket(folder: Path) -> None:
    own = {"ray.store": f"s3://{BUCKET}/p", "ray.home": folder / "node"}
    with nodes_apart(folder) as (nodes, s3, mlflow):
        apart = _run(folder, nodes, mlflow, own, s3)
        written = {name: _cached(nodes, name, folder / "node") for name in ("one", "two")}
        together = _run(folder, nodes, mlflow, {"ray.home": folder / "shared"}, s3)
    assert apart == together
    assert {"read", "split", "preprocess"} <= set(apart)
    assert all(written.values())
    assert written["one"] - written["two"]
    assert written["two"] - written["one"]


def _run(folder: Path, nodes: Nodes, mlflow: str, settings: dict[str, object], s3: str) -> dict[str, str]:
    """Run the workflow; returns the digests of its steps."""
    chosen = {"read.uri": folder / "rows", "read.text": "text", "preprocess.tokenizer": "base", "ray.mlflow": mlflow}
    end(start(folder, nodes, {**chosen, **settings}, workflow="preparation:prepared", AWS_ENDPOINT_URL=s3))
    run = last(folder)
    assert {step.status for step in run.steps} == {"done"}
    return digests(run)


def _cached(nodes: Nodes, name: str, home: Path) -> set[str]:
    """Names of the shards that a node has, read through the mount of its processes."""
    inside = Path(f"/proc/{nodes.nodes[name].pid}/root{home}")
    return {path.name for path in inside.rglob("*.parquet") if len(path.stem) == 64}
