"""What a training passes to Ray Train and to its workers; real worker groups: test_finetune.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raypath.components import Context
from raypath.components.models.metadata import ModelMetadata
from raypath.components.training import ray_train
from raypath.components.training.loop.validate import forward
from raypath.components.training.params import ResolvedParams
from raypath.components.training.ray_train import TrainingRequest


def _request(folder: Path, params: ResolvedParams | None = None, **fields: Any) -> TrainingRequest:
    metadata = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8)
    ctx = Context("finetune", folder / "out", folder, **fields)
    return TrainingRequest(ctx, Path("base"), "train", "valid", 2, metadata, params or ResolvedParams(workers=2), None)


@pytest.mark.parametrize(
    ("gpus", "node", "params", "size", "resources", "placement"),
    [
        (0, "", ResolvedParams(workers=2), 2, {"CPU": 0.5}, "SPREAD"),
        (1, "n", ResolvedParams(workers=1, max_workers=3), (1, 3), {"GPU": 1}, "PACK"),
    ],
)
def test_a_group_of_workers(
    gpus: int,
    node: str,
    params: ResolvedParams,
    size: Any,
    resources: dict[str, float],
    placement: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}

    def trainer(function: Any, **named: Any) -> Any:
        given.update(named, function=function)
        return "trainer"

    monkeypatch.setattr("ray.train.torch.TorchTrainer", trainer)
    request = _request(tmp_path, params, gpus=gpus, node=node)
    assert ray_train._trainer(request) == "trainer"
    assert given["function"] is ray_train.train_worker
    assert given["train_loop_config"] == {"request": request}
    assert given["torch_config"].folder == str(tmp_path)
    scaling, running = given["scaling_config"], given["run_config"]
    assert (scaling.num_workers, scaling.use_gpu, scaling.resources_per_worker) == (size, gpus > 0, resources)
    assert scaling.placement_strategy == placement
    assert scaling.label_selector == ({"ray.io/node-id": "n"} if node else None)
    assert running.name.startswith("attempt-")
    assert running.storage_path == str(tmp_path / "train")
    before = running.name
    ray_train._trainer(request)
    assert given["run_config"].name != before


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_worker_alone_has_a_tracker_and_writes_the_metrics(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.train

    from raypath.components.core.context import NoTracker

    seen: list[Any] = []

    def train(ctx: Context, request: TrainingRequest, workers: int) -> dict[str, float]:
        seen.append((type(ctx.track) is NoTracker, request, workers))
        return {"f1": 0.5}

    context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: 3)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "report", lambda metrics: seen.append(metrics))
    monkeypatch.setattr(ray_train, "_train", train)
    request = _request(tmp_path)
    ray_train.train_worker({"request": request})
    assert seen == [(rank > 0, request, 3), {"f1": 0.5}]
    written = tmp_path / "metrics.json"
    assert written.exists() is (rank == 0)
    if rank == 0:
        assert json.loads(written.read_text()) == {"f1": 0.5}


def test_one_worker_trains_in_the_process_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components import Dataset

    seen: list[Any] = []
    monkeypatch.setattr(
        ray_train, "_train", lambda ctx, request, workers: seen.append(("here", workers)) or {"f1": 1.0}
    )
    monkeypatch.setattr(ray_train, "_train_group", lambda request: seen.append(("group", request)) or {"f1": 2.0})
    monkeypatch.setattr(ray_train, "_model", lambda ctx, folder, metrics: metrics)
    splits = tuple(Dataset(rows=1, uri=name, labels=("a", "b")) for name in ("train", "valid"))
    ctx = Context("finetune", tmp_path, tmp_path)
    metadata = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8)

    def fit(**settings: Any) -> Any:
        return ray_train.fit(ctx, Path("base"), metadata, splits, ResolvedParams(**settings), Path("kept"), 7.0)  # type: ignore[arg-type]

    assert fit() == {"f1": 1.0}
    assert fit(workers=2) == {"f1": 2.0}
    assert fit(max_workers=2) == {"f1": 2.0}
    assert [name for name, _ in seen] == ["here", "group", "group"]
    assert seen[0][1] == 1
    request = seen[1][1]
    assert (request.folder, request.train, request.valid, request.labels) == (Path("base"), "train", "valid", 2)
    assert (request.metadata, request.trained_weights, request.seconds) == (metadata, Path("kept"), 7.0)


def test_features_go_through_the_head_alone() -> None:
    def model(inputs_embeds: torch.Tensor) -> Any:
        return SimpleNamespace(logits=inputs_embeds.shape)

    task: Any = SimpleNamespace(forward=lambda model, batch: "whole")
    assert forward(task, model, {"features": torch.ones(2, 3)}) == (2, 1, 3)
    assert forward(task, model, {"input_ids": torch.ones(2, 3)}) == "whole"
