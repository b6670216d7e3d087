"""A kind of column of one's own: trained on, opened in process, and in service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath.components import Context
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.inference.local_model import LocalModel
from raypath.components.models.metadata import read_metadata
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split
from tests.components.data.colour import Colour
from tests.components.serving.server import served, service_of
from tests.tiny import tiny_bert

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROWS = [{"name": "rose", "colour": "#ff0000"}, {"name": "sky"}]


def test_it_is_trained_on_and_served(tmp_path: Path, make_context: Callable[..., Context], settle: Any) -> None:
    lines = [f"thing {n},#{'ff0000' if n % 2 else '0000ff'},{'ab'[n % 2]}" for n in range(60)]
    (tmp_path / "d.csv").write_text("name,colour,label\n" + "\n".join(lines) + "\n")
    kinds = {"colour": f"{Colour.__module__}:Colour"}
    ctx = make_context("read")
    params = ReadParams(uri=str(tmp_path / "d.csv"), inputs=("name", "colour"), kinds=kinds)
    data = settle(ctx, read.fn(ctx, params))
    ctx = make_context("split")
    splits = settle(ctx, split.fn(ctx, data, SplitParams()))
    base = str(tiny_bert(tmp_path / "base"))
    ctx = make_context("preprocess")
    splits = settle(ctx, preprocess.fn(ctx, splits, PreprocessParams(tokenizer=base, max_length=32)))
    ctx = make_context("finetune")
    tuned = ResolvedParams(base=base, epochs=6, lr=2e-3, batch_tokens=256, threads=1, frozen_layers=0)
    model = settle(ctx, finetune.fn(ctx, splits.train, splits.valid, None, tuned))
    assert [column.kind for column in read_metadata(Path(model.uri)).columns] == ["text", *kinds.values()]
    found = LocalModel(Path(model.uri), "m", 1, threads=1).predict(ROWS)
    assert found[0].label == "b", "red is the class b"
    with served(service_of({"m": model})) as url:
        reply = httpx.post(f"{url}/predict", json={"rows": ROWS})
        assert [row["label"] for row in reply.json()["predictions"]] == [row.label for row in found]
        wrong = httpx.post(f"{url}/predict", json={"rows": [{"name": "a", "colour": "blue"}]})
        assert (wrong.status_code, "colour[0] is not a colour such as #ff0000" in wrong.text) == (422, True)
