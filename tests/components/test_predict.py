"""Batch prediction by Ray Data."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components import DataError, ParamsError
from components.predict import PredictParams, predict
from components.serving.engine import Engine
from tests.tiny_classifier import LABELS, texts, tiny_classifier, tiny_dataset


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data") / "all", model, rows=300)


def test_rows_come_out_in_order_with_the_models_answers(ray_head, model, data, make_context) -> None:
    ctx = make_context("predict")
    made = predict.fn(ctx, data, PredictParams(model=model.uri, batch=64, scores=True))
    assert (made.rows, made.labels, made.label_kind, made.uri) == (300, LABELS, "string", "")
    assert [p.name for p in ctx.out.iterdir()] == ["predictions-00000.parquet"]
    rows = pq.read_table(ctx.out)
    assert rows.column_names == ["text", "label", "predicted", "score", "scores"]
    assert rows["text"].to_pylist() == texts(300)
    tokens = pq.read_table(data.uri)["input_ids"].to_pylist()
    engine = Engine(Path(model.uri))
    wanted = engine.task.decode(engine.record(tokens))
    assert rows["predicted"].to_pylist() == [LABELS[k] for k in wanted.argmax(axis=1)]
    np.testing.assert_allclose(rows["scores"].to_pylist(), wanted, atol=1e-5)
    np.testing.assert_allclose(rows["score"].to_pylist(), wanted.max(axis=1), atol=1e-5)


def test_a_broken_model_in_the_workers_is_told_in_one_line(ray_head, model, data, make_context, tmp_path) -> None:
    broken = tiny_classifier(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="does not open") as caught:
        predict.fn(make_context("predict"), data, PredictParams(model=broken.uri))
    assert "\n" not in str(caught.value)


def test_no_model_and_no_texts_are_refused_before_anything_starts(model, data, make_context, tmp_path) -> None:
    with pytest.raises(ParamsError, match="setting model got nothing"):
        predict.fn(make_context("predict"), data, PredictParams())
    with pytest.raises(DataError, match=r"no raypath\.json"):
        predict.fn(make_context("predict"), data, PredictParams(model=str(tmp_path)))
    table = pq.read_table(data.uri).drop_columns(["text"])
    (tmp_path / "bare").mkdir()
    pq.write_table(table, tmp_path / "bare" / "part.parquet")
    bare = data.model_copy(update={"uri": str(tmp_path / "bare")})
    with pytest.raises(DataError, match="lacks the column text"):
        predict.fn(make_context("predict"), bare, PredictParams(model=model.uri))
