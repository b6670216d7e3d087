"""What tests commit to a store: splits of one small file each."""

import json
from pathlib import Path

from raypath.components.core.artifacts import Dataset, Splits
from raypath.deploy.store.store import Record, Store


def record_of(key: str) -> Record:
    return Record(key=key, step="s", component="m:f", key_inputs={}, artifact={}, started=0.0, seconds=1.0)


SPLITS = Splits(
    train=Dataset(uri="train", rows=1), valid=Dataset(uri="valid", rows=1), test=Dataset(uri="test", rows=1)
)


def write_splits(store: Store, key: str, text: str = "x", size: int = 1) -> Path:
    attempt = store.attempt(key)
    for part in ("train", "valid", "test"):
        (attempt / part).mkdir()
        (attempt / part / "a b#ü%.txt").write_text(f"{part} {text}" * size)
    return attempt


def text_of(part: Dataset) -> str:
    return (Path(part.uri) / "a b#ü%.txt").read_text()


def splits_of(record: Record | None) -> Splits:
    assert record is not None
    return Splits.model_validate_json(json.dumps(record.artifact))
