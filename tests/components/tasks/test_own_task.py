"""A task of one's own, in one short class: fine-tuned, evaluated and asked without any change elsewhere."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from raypath.components import Dataset, ParamsError
from raypath.components.core.artifacts import Settings
from raypath.components.core.context import Context
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.inference.engine import Engine
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.models.metadata import read_metadata
from raypath.components.tasks.base import Task
from tests.tiny import rows

STARS = ("1", "2", "3", "4")


class Stars(BaseModel):
    """The predicted grade, and how likely each one is to be exceeded."""

    stars: int
    above: list[float]


class StarsResponse(BaseModel):
    """One prediction a text."""

    model: str
    version: int
    predictions: list[Stars]


class Ordinal(Task):
    """Grades in an order: output k says how likely a row is above grade k; a near miss costs less than a far one.

    Frank and Hall, A Simple Approach to Ordinal Classification, 2001.
    """

    name = "ordinal"
    kinds = frozenset({"int"})
    metric = "mean_distance"
    lower_is_better = frozenset({"mean_distance"})
    response = StarsResponse

    def loss(self, outputs: Any, batch: dict[str, Any]) -> Any:
        import torch

        steps = torch.arange(outputs.shape[1], device=outputs.device)
        above = (batch["targets"][:, None] > steps).float()  # the last step is above no grade
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs.float(), above, reduction="sum")

    def decode(self, recorded: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-recorded.astype(np.float64)))

    def grades(self, decoded: np.ndarray) -> np.ndarray:
        return (decoded[:, :-1] >= 0.5).sum(axis=1)

    def metrics(self, targets: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
        distance = np.abs(targets - self.grades(decoded))
        return {"mean_distance": float(distance.mean()), "exact": float((distance == 0).mean())}

    def predictions(self, decoded: np.ndarray) -> list[BaseModel]:
        rows = zip(self.grades(decoded), decoded, strict=True)
        return [Stars(stars=int(self.metadata.labels[grade]), above=row[:-1].tolist()) for grade, row in rows]

    def columns(self, decoded: np.ndarray) -> dict[str, pa.Array]:
        return self.target_columns(self.grades(decoded), "predicted")

    def target_columns(self, targets: np.ndarray, name: str = "label") -> dict[str, pa.Array]:
        return {name: pa.array(self.metadata.labels).take(pa.array(targets))}


def part(folder: Path, base: Path, count: int, seed: int) -> Dataset:
    """Rows whose grade is how much of them is one word of two."""
    folder.mkdir()
    made = rows(count, seed)
    ids = [made.ids[made.offsets[n] : made.offsets[n + 1]] for n in range(count)]
    grades = np.minimum([4 * (row == 2307).mean() for row in ids], 3).astype(int)
    columns = {"input_ids": pa.array([row.tolist() for row in ids], pa.list_(pa.int32())),
               "target": pa.array(grades, pa.int32()), "label": pa.array(STARS).take(pa.array(grades))}  # fmt: skip
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    facts = {"labels": STARS, "label_kind": "int", "tokenizer": tokenizer_digest(base), "max_length": 64}
    return Dataset(uri=str(folder), digest=f"{seed}" * 64, rows=count, source="made up", **facts)  # type: ignore[arg-type]


def context(folder: Path, step: str) -> Context:
    for name in ("out", "scratch"):
        (folder / step / name).mkdir(parents=True)
    return Context(step, folder / step / "out", folder / step / "scratch", workers=1)


def test_a_task_of_ones_own_takes_under_sixty_lines() -> None:
    assert sum(len(inspect.getsource(kind).splitlines()) for kind in (Stars, StarsResponse, Ordinal)) < 60


def test_it_is_trained_measured_and_asked_like_any_other(base: Path, tmp_path: Path) -> None:
    train, valid, test = (part(tmp_path / str(seed), base, 200, seed) for seed in range(3))
    params = ResolvedParams(
        base=str(base),
        task="tests.components.tasks.test_own_task:Ordinal",
        epochs=4,
        lr=3e-3,
        batch_tokens=512,
        threads=1,
    )
    ctx = context(tmp_path, "finetune")
    nothing = Settings(values={}, metric="", score=0.0, trials=0)
    model = finetune.fn(ctx, train, valid, nothing, params).finalized(str(ctx.out), "m")
    assert read_metadata(ctx.out).task == params.task
    assert set(model.metrics) == {"mean_distance", "exact"}
    ctx = context(tmp_path, "evaluate")
    report = evaluate.fn(ctx, model, test, EvaluateParams(resamples=20))
    table = pq.read_table(ctx.out / "predictions.parquet")
    assert table.column_names == ["row", "label", "predicted"]
    distance = [
        abs(int(a) - int(b)) for a, b in zip(*(table[n].to_pylist() for n in ("label", "predicted")), strict=True)
    ]
    assert report.metrics == {"mean_distance": np.mean(distance), "exact": np.mean([d == 0 for d in distance])}
    prediction = np.bincount(pq.read_table(train.uri)["target"].to_numpy()).argmax()
    blind = np.abs(pq.read_table(test.uri)["target"].to_numpy() - prediction).mean()
    assert report.metrics["mean_distance"] < blind, "it learnt something"
    engine = Engine(Path(model.uri))
    answers = engine.task.predictions(engine.task.decode(engine.record([[2307] * 9, [2919] * 9])))
    assert [answer.stars for answer in answers] == [4, 1]  # type: ignore[attr-defined]
    assert not engine.task.intervals(np.zeros(2), np.zeros(2), 10, 0)


def test_its_figures_are_judged_by_its_own_direction(base: Path, tmp_path: Path) -> None:
    task = Ordinal(read_card_of(STARS))
    assert task.score(None, {"mean_distance": 0.5}) == -0.5
    assert Ordinal.is_lower("mean_distance_high")
    with pytest.raises(ParamsError, match="there is no metric macro_f1; use one of mean_distance, exact"):
        task.score("macro_f1", {"mean_distance": 0.5, "exact": 0.1, "exact/1": 0.2})


def read_card_of(labels: tuple[str, ...]) -> Any:
    from raypath.components.models.metadata import ModelMetadata

    return ModelMetadata(
        task="tests.components.tasks.test_own_task:Ordinal", labels=labels, label_kind="int", max_length=64
    )
