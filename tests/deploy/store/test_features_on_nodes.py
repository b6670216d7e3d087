"""Features that tasks on other nodes compute: they fetch the encoder and the rows from the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Context, Dataset
from raypath.components.core.artifacts import Splits
from raypath.components.core.errors import StoreError
from raypath.components.data.streaming import shard_tasks
from raypath.components.data.streaming.manifest import Manifest, read_manifest
from raypath.components.data.streaming.ray_tasks import Item
from raypath.components.data.streaming.shard_storage import bucket_of
from raypath.components.extract import ExtractParams, extract
from raypath.components.training.batches import frozen_features
from raypath.components.training.batches.stored_folder import StoredFolder
from raypath.deploy.store.factory import open_store
from tests.components.small_files import use_small_files
from tests.deploy.store.test_shard_storage import context
from tests.tiny import write_part

ROWS = 9_000


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Dataset:
    """Rows that one process wrote."""
    return write_part(tmp_path_factory.mktemp("rows"), base, ROWS, 0)


@pytest.fixture(autouse=True)
def _tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in this process, as on another machine: with a cache of their own."""

    def run(call: Any, items: list[Item], ctx: Context, anywhere: bool = False) -> Iterator[tuple[str, str]]:
        assert anywhere == (ctx.storage is not None)
        for item in items:
            yield (_elsewhere(call, tmp_path / "there") if anywhere else call)(item)

    monkeypatch.setattr(shard_tasks, "run_tasks", run)
    monkeypatch.setattr(frozen_features, "INLINE_ROWS", 0)
    use_small_files(monkeypatch)


def _elsewhere(call: Any, there: Path) -> Any:
    """The call on another machine, which has none of the folders that it was made with."""
    name, output = next(iter(call.outputs.items()))
    features = output.transform
    origin = replace_cache(features.stored.origin, there)
    stored = replace(features.stored, origin=origin)
    features = replace(features, folder=Path("nowhere"), stored=stored)
    files = tuple(
        (replace(file, origin=replace_cache(file.origin, there)), count) for file, count in output.source.files
    )
    source = replace(output.source, files=files)
    storage = replace(call.storage, cache=there / "shards")
    outputs = {name: replace(output, transform=features, source=source)}
    return replace(call, outputs=outputs, staging=there / "staging", storage=storage)


def replace_cache(origin: Any, there: Path) -> Any:
    """The origin with the cache of another machine."""
    return origin.model_copy(update={"cache": there / "shards"})


def manifest(ctx: Context, name: str) -> Manifest:
    found = read_manifest(ctx.out / name)
    assert found is not None
    return found


def test_features_of_other_nodes_have_the_same_bytes(address: str, rows: Dataset, base: Path, tmp_path: Path) -> None:
    splits, params = Splits(train=rows, valid=rows, test=rows), ExtractParams(base=str(base), method="head")
    here = context(open_store(tmp_path / "1", ""), "k")
    alone = extract.fn(here, splits, params)
    there = replace(context(open_store(tmp_path / "2", address), "k"), key="k", node="node")
    made = extract.fn(there, splits, params)
    assert len(manifest(here, "train").shards) > 1
    assert manifest(there, "train") == manifest(here, "train")
    assert (made.train.features, made.valid.features) == (alone.train.features, alone.valid.features)
    assert not list((there.out / "train").glob("*.parquet")), "the files are in the bucket"
    assert len(list((tmp_path / "there" / "shards").glob("*.parquet"))) >= 4, "rows, encoder, features"


def test_an_encoder_that_was_changed_in_the_bucket_is_refused(address: str, base: Path, tmp_path: Path) -> None:
    ctx = replace(context(open_store(tmp_path / "2", address), "k"), key="k", node="node")
    assert ctx.part_storage is not None
    stored = StoredFolder.of(base, ctx.part_storage, ctx.scratch / ".encoder")
    assert {"config.json", "model.safetensors"} <= {file.name for file in stored.files}
    assert not list((ctx.scratch / ".encoder").iterdir()), "moved to the cache"
    elsewhere = replace(stored, origin=replace_cache(stored.origin, tmp_path / "there"))
    with elsewhere.fetch() as folder:
        assert (folder / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert not folder.exists()
    weights = next(file for file in stored.files if file.name == "model.safetensors")
    bucket_of(address).put(stored.origin.name(weights), b"x" * weights.bytes)
    again = replace(stored, origin=replace_cache(stored.origin, tmp_path / "third"))
    with pytest.raises(StoreError, match="missing or corrupt"), again.fetch():
        pass
