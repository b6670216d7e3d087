"""Artifacts: their facts, nested ones and pages; and where the tasks of a step run and store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components import Context, Dataset, Model
from raypath.components.core.artifacts import DataReport, Report
from raypath.components.core.context import ShardStorage

TRAIN = Dataset(rows=600, uri="train", digest="1")
MODEL = Model(task="text_classification", base="tiny", labels=("a", "b"), max_length=8, digest="m")


def test_pages_and_nested_artifacts() -> None:
    report = Report(model=MODEL, data=TRAIN, metrics={}, uri="folder")
    assert report.page == Path("folder/report.html")
    assert DataReport(rows=1, metrics={}, uri="folder").page == Path("folder/report.html")
    assert list(Report.nested_types()) == ["model", "data"]
    assert dict(report.nested()) == {"model": MODEL, "data": TRAIN}
    assert report.facts() == {"metrics": {}}
    assert TRAIN.facts()["rows"] == 600
    assert not {"uri", "digest"} & set(TRAIN.facts())
    moved = report.finalized("there", "9", model=MODEL.finalized("m", "8"))
    assert (moved.uri, moved.digest, moved.model.uri, moved.data) == ("there", "9", "m", TRAIN)


def test_where_the_tasks_of_a_step_run_and_store(tmp_path: Path) -> None:
    storage = ShardStorage("s3://b/f", tmp_path)
    assert (storage.folder, storage.temporary("k").folder) == ("shards", "scratch/k/parts")

    def context(**fields: Any) -> Context:
        return Context("read", tmp_path, tmp_path, **fields)

    assert context(storage=storage).part_storage is None
    assert context(node="n").part_storage is None
    assert context(storage=storage, node="n").part_storage == storage.temporary("read")
    assert context(storage=storage, node="n", key="k").part_storage == storage.temporary("k")
    assert context().log.name == "raypath.read"
    assert context().workers == 1
    assert context(workers=2).task_workers() == 2
    assert context(workers=2, cluster_workers=8).task_workers() == 8
    assert context(workers=2, cluster_workers=8, node="n").task_workers() == 2
    assert context(workers=2, cluster_workers=8, node="n").task_workers(anywhere=True) == 8
    assert context().input(TRAIN) == Path("train")
