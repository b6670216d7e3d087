"""Models of each kind of task, evaluated, as MLflow loads them, and over HTTP: the same answers everywhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from raypath.components import DataError, Dataset, Model
from raypath.components.core.context import Context
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.inference.batch.scoring import score
from raypath.components.inference.batch.targets import target_reader
from raypath.components.inference.engine import Engine
from raypath.components.models.metadata import ModelMetadata
from tests.components.serving.replica import api_of
from tests.tiny_classifier import LENGTH, made_up, texts, tiny_classifier, tiny_dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
KINDS: dict[str, dict[str, Any]] = {
    "bool": {"labels": ("false", "true"), "thresholds": (0.8,)},
    "set": {"labels": ("red", "green", "好"), "thresholds": (0.3, 0.5, 0.9)},
    "number": {"labels": ("height", "weight"), "means": (5.0, -100.0), "scales": (2.0, 30.0)},
}
LINES = texts(40)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("model") / "tiny", kind=request.param, **KINDS[request.param])


@pytest.fixture(scope="module")
def data(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "test", model, rows=40)


def by_hand(model: Model) -> list[Any]:
    """What each of LINES is answered, from the head's numbers."""
    logits = Engine(Path(model.uri)).record(TextTokenizer(Path(model.uri), LENGTH).encode(LINES)).astype(np.float64)
    facts = KINDS[model.label_kind]
    if model.label_kind == "bool":
        return [bool(1 / (1 + np.exp(row[0] - row[1])) >= 0.8) for row in logits]
    if model.label_kind == "number":
        return [dict(zip(model.labels, row * facts["scales"] + facts["means"], strict=True)) for row in logits]
    chosen = 1 / (1 + np.exp(-logits)) >= facts["thresholds"]
    return [[model.labels[k] for k in np.flatnonzero(row)] for row in chosen]


def test_evaluate_measures_and_writes_what_the_model_answers(model: Model, data: Dataset, tmp_path: Path) -> None:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    ctx = Context("evaluate", tmp_path / "out", tmp_path / "scratch", workers=1)
    report = evaluate.fn(ctx, model, data, EvaluateParams(resamples=50))
    rows = pq.read_table(ctx.out / "predictions.parquet")
    wanted, given = by_hand(model), made_up(model, 40)
    if model.label_kind == "number":
        assert rows.column_names == ["row", "label_height", "label_weight", "predicted_height", "predicted_weight"]
        np.testing.assert_allclose(rows["predicted_weight"].to_numpy(), [w["weight"] for w in wanted], atol=1e-2)
        missed = np.array([[g[0] - w["height"], g[1] - w["weight"]] for g, w in zip(given, wanted, strict=True)])
        assert report.metrics["mae"] == pytest.approx(np.abs(missed).mean(), rel=1e-3)
        assert report.metrics["mae_low"] <= report.metrics["mae"] <= report.metrics["mae_high"]
    else:
        wanted = [str(w).lower() for w in wanted] if model.label_kind == "bool" else wanted
        assert rows["predicted"].to_pylist() == wanted
        assert rows["label"].to_pylist() == given
        name = "accuracy" if model.label_kind == "bool" else "subset_accuracy"
        assert report.metrics[name] == pytest.approx(np.mean([w == g for w, g in zip(wanted, given, strict=True)]))
        assert report.metrics[f"{name}_low"] <= report.metrics[name] <= report.metrics[f"{name}_high"]
    assert list((ctx.out / "plots").iterdir())


def test_mlflow_loads_it_and_answers_the_same(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    from raypath.components.registry.publish import _write

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    folder = _write(model, tmp_path / "work", SimpleNamespace(model_id=None, source_run_id=None), {}, lambda _: None)
    import mlflow.pyfunc

    opened = mlflow.pyfunc.load_model(str(folder))
    found = opened.predict(pd.DataFrame({"text": LINES}))
    assert list(found.columns) == opened.metadata.get_output_schema().input_names()
    wanted = by_hand(model)
    if model.label_kind == "number":
        for name in model.labels:
            np.testing.assert_allclose(found[name], [row[name] for row in wanted], atol=1e-2)
    else:
        assert found["label" if model.label_kind == "bool" else "labels"].tolist() == wanted
    assert len(opened.predict(pd.DataFrame({"text": pd.Series([], dtype=object)}))) == 0


def test_http_answers_and_documents_the_tasks_own_types(model: Model) -> None:
    engine = Engine(Path(model.uri))
    with TestClient(api_of(model)) as client:
        found = client.post("/predict", json={"text": LINES}).json()
        single = client.post("/predict", json={"text": LINES[3]}).json()
        schema = client.get("/openapi.json").json()
        wrong = client.post("/predict", json={"text": "SECRET", "SECRET": 1})
    key = {"bool": "label", "set": "labels", "number": "values"}[model.label_kind]
    wanted = by_hand(model)
    answers = [row[key] for row in found["predictions"]]
    if model.label_kind == "number":
        assert [row["height"] for row in answers] == pytest.approx([row["height"] for row in wanted], abs=1e-2)
    else:
        assert answers == wanted
    assert len(single["predictions"]) == 1
    kind = type(engine.task).response
    told = schema["paths"]["/predict"]["post"]
    assert told["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith(f"/{kind.__name__}")
    assert told["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Request")
    assert key in str(schema["components"]["schemas"])
    assert wrong.status_code == 422
    assert "SECRET" not in wrong.text


def test_a_version_of_another_kind_is_not_swapped_in(tmp_path: Path) -> None:
    from raypath.components.serving.replica.loader import open_version
    from raypath.components.serving.replica.model_manager import ModelManager
    from raypath.components.tasks.catalog import task_type

    other = tiny_classifier(tmp_path / "numbers", kind="number", labels=("price",))
    versions = ModelManager("", task_type("text_classification", "string"), threads=1)
    with pytest.raises(DataError, match="it is a regression of number labels, and another kind is in service"):
        versions._checked(open_version(Path(other.uri), "m", 2, 1))


def test_targets_are_put_in_the_models_order(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "m", kind="number", labels=("height", "weight"))
    data = tiny_dataset(tmp_path / "d", model, rows=6)
    wanted = np.array(made_up(model, 6))
    turned = data.model_copy(update={"labels": ("weight", "height")})
    np.testing.assert_array_equal(score(Path(model.uri), data, 1)[0], wanted)
    np.testing.assert_array_equal(score(Path(model.uri), turned, 1)[0], wanted[:, ::-1])


@pytest.mark.parametrize(
    ("kind", "labels", "changes", "told"),
    [
        ("set", [["red"], ["private"]], {}, "a label that the model never saw"),
        ("set", [["red"], None], {}, "a row without a label"),
        ("set", [["red"], []], {"label_kind": "string"}, "labels of kind string; the model was trained on set"),
        ("number", [[1.0, 2.0], [float("nan"), 1.0]], {}, "NaN or infinite"),
        ("number", [[1.0, 2.0], [1.0]], {}, "a row without 2 targets"),
        ("number", [[1.0, 2.0]], {"labels": ("height", "age")}, "the targets height, age; the model's are height, wei"),
        ("bool", ["true", "false"], {"label_kind": "set"}, "labels of kind set; the model was trained on bool"),
    ],
)
def test_labels_that_do_not_fit_the_model_are_refused(kind, labels, changes, told) -> None:
    metadata = ModelMetadata(task="any", labels=KINDS[kind]["labels"], label_kind=kind, max_length=8)
    data = Dataset(rows=len(labels), label_kind=kind).model_copy(update=changes)
    column = pa.array(labels, {"set": pa.list_(pa.string()), "number": pa.list_(pa.float64())}.get(kind))
    with pytest.raises(DataError, match=told) as caught:
        target_reader(metadata, data)(pa.record_batch({"label": column}))
    assert "private" not in str(caught.value)
    assert "\n" not in str(caught.value)
