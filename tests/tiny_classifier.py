"""A tiny classifier as `finetune` leaves it, and a dataset as `preprocess` leaves it."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components import Dataset, Model
from components.data.tokens import Encoder
from components.tasks.bases import Card, tokenizer_digest, write_card
from tests.tiny import save_tokenizer, tiny_config

LABELS = ("bad", "good", "ok")
LENGTH = 32
WORDS = ("tea", "broken", "lovely", "cup", "late", "box", "never", "again")


def tiny_classifier(folder: Path, labels: Sequence[str] = LABELS, kind: str = "string", seed: int = 0) -> Model:
    """A 2-layer, 32-wide BERT with random weights; its head is scaled up so that answers differ between texts."""
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
    write_card(folder, Card(task="text_classification", labels=tuple(labels), label_kind=kind, max_length=LENGTH))
    return Model(
        uri=str(folder),
        digest=f"model-{seed}",
        task="text_classification",
        base="tiny",
        labels=tuple(labels),
        label_kind=kind,
        max_length=LENGTH,
    )


def texts(rows: int) -> list[str]:
    """Texts of 1 to 37 words, each different."""
    return [" ".join(WORDS[(n * 7 + k * (n % 5 + 1)) % 8] for k in range(n % 37 + 1)) + f" {n}" for n in range(rows)]


def tiny_dataset(
    folder: Path, model: Model, rows: int = 200, labels: Sequence[str] | None = None, digest: str = "test-part"
) -> Dataset:
    """Two Parquet files with text, label, input_ids and target; labels go round unless given."""
    folder.mkdir(parents=True)
    names = list(labels) if labels is not None else [model.labels[(n * n) % len(model.labels)] for n in range(rows)]
    lines = texts(rows)
    tokens = Encoder(Path(model.uri), LENGTH).encode(lines)
    targets = [model.labels.index(name) if name in model.labels else 0 for name in names]
    table = pa.table(
        {
            "text": lines,
            "label": names,
            "input_ids": pa.array(tokens, pa.list_(pa.int32())),
            "target": pa.array(targets, pa.int32()),
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
