"""A tiny model of a task as `finetune` leaves it, and a dataset as `preprocess` leaves it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components import Context, Dataset, Model, Report
from raypath.components.core.columns import Column
from raypath.components.core.context import Tracking
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.inference.batch.scoring import read_targets, save_outputs
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from raypath.components.register import RegisterParams, register
from raypath.components.tasks.catalog import load_task
from tests.tiny import save_tokenizer, tiny_config

LABELS = ("bad", "good", "ok")
LENGTH = 32
SEVERAL = tuple(
    Column(name=name, kind=kind, stored=f"input.{name}")
    for name, kind in {"title": "text", "price": "number", "new": "boolean", "tags": "set", "at": "time"}.items()
)
"""Input columns of a model with one of several kinds each; with form="fields"."""
WORDS = ("tea", "broken", "lovely", "cup", "late", "box", "never", "again")


def tiny_classifier(
    folder: Path, labels: Sequence[str] = LABELS, kind: str = "string", seed: int = 0, **metadata: Any
) -> Model:
    """A 2-layer, 32-wide BERT with random weights; its head is scaled up so that answers differ between texts.

    kind: of the labels; set makes a model of sets, number a regression. metadata: further fields of the ModelMetadata.
    """
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    config = tiny_config(max_position_embeddings=64, **names)
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5.0)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    task = "regression" if kind == "number" else "text_classification"
    write_metadata(
        folder, ModelMetadata(task=task, labels=tuple(labels), label_kind=kind, max_length=LENGTH, **metadata)
    )
    return Model(
        uri=str(folder),
        digest=f"model-{seed}",
        task=task,
        base="tiny",
        labels=tuple(labels),
        label_kind=kind,
        max_length=LENGTH,
    )


def tiny_report(folder: Path, model: Model, data: Dataset, right: float) -> Report:
    """What `evaluate` would leave of a model that predicts the first `right` of the rows correctly, and no other."""
    task = load_task(read_metadata(Path(model.uri)))
    targets = read_targets(task.metadata, data)
    correct = np.arange(len(targets)) < round(right * len(targets))
    if targets.ndim == 1:
        classes = len(model.labels)
        outputs = 4.0 * np.eye(classes)[np.where(correct, targets, (targets + 1) % classes)]
    elif model.label_kind == "number":
        outputs = np.where(correct[:, None], targets, targets + 3.0)
    else:
        outputs = np.where(correct[:, None], targets, 1 - targets) * 8.0 - 4.0
    folder.mkdir(parents=True)
    save_outputs(folder, outputs)
    return Report(
        uri=str(folder), model=model, data=data, metrics=task.metrics(targets, task.decode(outputs.astype(np.float32)))
    )


def register_classifier(
    uri: str, place: Path, name: str, metrics: Mapping[str, float], source: str = "", **metadata: Any
) -> None:
    """Register a tiny classifier with the MLflow server at `uri` as version 1 of `name`; `place` has its files."""
    for folder in ("out", "scratch"):
        (place / folder).mkdir()
    tracking = Tracking(uri=uri, experiment=name, spool=str(place / "spool"))
    ctx = Context("register", place / "out", place / "scratch", workers=1, tracking=tracking, key=name)
    model = tiny_classifier(place / "model", **metadata)
    data = tiny_dataset(place / "data", model, rows=10).model_copy(update={"source": source})
    register.fn(ctx, model, Report(model=model, data=data, metrics=dict(metrics)), RegisterParams(name=name))


def texts(rows: int) -> list[str]:
    """Texts of 1 to 37 words, each different."""
    return [" ".join(WORDS[(n * 7 + k * (n % 5 + 1)) % 8] for k in range(n % 37 + 1)) + f" {n}" for n in range(rows)]


def tiny_dataset(
    folder: Path, model: Model, rows: int = 200, labels: Sequence[Any] | None = None, digest: str = "test-part"
) -> Dataset:
    """Two Parquet files with text, label, input_ids and target; labels go round unless given."""
    folder.mkdir(parents=True)
    given = list(labels) if labels is not None else made_up(model, rows)
    lines = texts(rows)
    tokens = TextTokenizer(Path(model.uri), LENGTH).encode(lines)
    kind = {"set": pa.list_(pa.string()), "number": pa.list_(pa.float64())}.get(model.label_kind, pa.string())
    table = pa.table(
        {
            "text": lines,
            "label": pa.array(given, kind),
            "input_ids": pa.array(tokens, pa.list_(pa.int32())),
            "target": _targets(model, given),
        }
    )
    pq.write_table(table.slice(0, rows // 2), folder / "part-00000.parquet")
    pq.write_table(table.slice(rows // 2), folder / "part-00001.parquet")
    return Dataset(
        uri=str(folder),
        digest=digest,
        rows=rows,
        labels=model.labels,
        label_kind=model.label_kind,
        source="made up",
        tokenizer=tokenizer_digest(Path(model.uri)),
        max_length=LENGTH,
    )


def made_up(model: Model, rows: int) -> list[Any]:
    """Labels that go round: a class, a set of none to all of them, or numbers."""
    count = len(model.labels)
    if model.label_kind == "set":
        return [[label for k, label in enumerate(model.labels) if (n * n + n * k) % 3 == 1] for n in range(rows)]
    if model.label_kind == "number":
        return [[float((n * 7 + k) % 11) for k in range(count)] for n in range(rows)]
    return [model.labels[(n * n) % count] for n in range(rows)]


def _targets(model: Model, given: list[Any]) -> Any:
    number = {label: n for n, label in enumerate(model.labels)}
    if model.label_kind == "set":
        return pa.array([[number.get(name, 0) for name in row] for row in given], pa.list_(pa.int32()))
    if model.label_kind == "number":
        return pa.array(given, pa.list_(pa.float32()))
    return pa.array([number.get(name, 0) for name in given], pa.int32())
