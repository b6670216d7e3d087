"""What a training worker on a node without the step's folders fetches from the bucket."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.core.errors import StoreError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.training.checkpoints import checkpoint
from raypath.components.training.checkpoints.resume import find_resume_point
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime.training_request import TrainingRequest
from raypath.deploy.store.factory import open_store
from tests.deploy.store.test_features_on_nodes import replace_cache
from tests.deploy.store.test_shard_storage import context
from tests.tiny import write_part


@pytest.fixture
def request_of_a_step(address: str, base: Path, tmp_path: Path) -> TrainingRequest:
    """A training of 40 rows on the node `first`, with a checkpoint."""
    (tmp_path / "rows").mkdir()
    rows = write_part(tmp_path / "rows", base, 40, 0)
    ctx = replace(context(open_store(tmp_path / "store", address), "k"), key="k", node="first")
    (ctx.scratch / "last").mkdir(parents=True)
    (ctx.scratch / "memory.json").write_text("{}")
    made = checkpoint.Snapshot({"weight": torch.ones(2)}, {"0.step": torch.zeros(())}, [])
    checkpoint.save(ctx.scratch / "best", 3, made, {})
    checkpoint.save(ctx.scratch / "last", 4, made, {"execution": {}, "best_step": 3})
    checkpoint.save(ctx.scratch / "last", 5, made, {"execution": {}, "best_step": 3})
    metadata = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=32)
    return TrainingRequest(ctx, base, rows.uri, rows.uri, 2, metadata, ResolvedParams(), None)


def test_a_worker_on_another_node_reads_the_same_files(request_of_a_step: TrainingRequest, tmp_path: Path) -> None:
    sent = request_of_a_step.with_stored_files()
    assert (request_of_a_step.node, sent.node) == ("first", "")
    with sent.on_node("first") as here:
        assert here is sent, "the step's node has the folders"
    with _elsewhere(sent, tmp_path).on_node("second") as there:
        assert _files(there.folder) == {n: c for n, c in _files(sent.folder).items() if n.endswith(("json", "tensors"))}
        for split in ("train", "valid"):
            assert _files(Path(getattr(there, split))) == _files(Path(getattr(sent, split)))
        start, wanted = find_resume_point(there.context.scratch), find_resume_point(sent.context.scratch)
        assert start is not None
        assert wanted is not None
        assert start.best is not None
        assert (
            (start.at.name, start.best.name) == (wanted.at.name, "step-00000003") == ("step-00000005", start.best.name)
        )
        assert (there.context.scratch / "memory.json").is_file(), "ranks that plan memory wait for each other"
        assert not (there.context.scratch / "last" / "step-00000004").exists(), "older checkpoints are not read"
        assert there.trained_weights is None
    assert not there.folder.exists()


def test_a_worker_does_not_train_on_a_file_that_was_changed(request_of_a_step: TrainingRequest, tmp_path: Path) -> None:
    from raypath.components.data.streaming.shard_storage import bucket_of

    sent = request_of_a_step.with_stored_files()
    stored = sent.stored["train"]
    bucket_of(stored.origin.address).put(stored.origin.name(stored.files[0]), b"x" * stored.files[0].bytes)
    with pytest.raises(StoreError, match="missing or corrupt"), _elsewhere(sent, tmp_path).on_node("second"):
        pass


def test_nodes_that_share_a_folder_fetch_nothing(request_of_a_step: TrainingRequest) -> None:
    shared = replace(request_of_a_step, context=replace(request_of_a_step.context, node=""))
    assert not shared.with_stored_files().stored


def _elsewhere(sent: TrainingRequest, tmp_path: Path) -> TrainingRequest:
    """The request on a machine with a cache of its own."""
    there = tmp_path / "there"
    stored: dict[str, Any] = {
        name: replace(folder, origin=replace_cache(folder.origin, there)) for name, folder in sent.stored.items()
    }
    return replace(sent, stored=stored)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
