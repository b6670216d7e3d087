"""The engine, the metrics with their intervals, the plots, and the step."""

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from raypath.components import DataError, Dataset, Model
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.evaluate import EvaluateParams, _tracked, evaluate
from raypath.components.evaluation.bootstrap_classes import intervals, statistics
from raypath.components.evaluation.metrics import calibration_error
from raypath.components.evaluation.plots import classification as plots
from raypath.components.evaluation.plots import style
from raypath.components.inference.batch.scoring import score
from raypath.components.inference.bucketing import group_by_length, padded_width, round_up
from raypath.components.inference.engine import Engine
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.tasks.multi_label import MultiLabel
from raypath.components.tasks.text_classification import TextClassification
from tests.tiny_classifier import LABELS, LENGTH, texts, tiny_classifier, tiny_dataset


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "test", model)


def plain_logits(model: Model, lines: list[str]) -> np.ndarray:
    """The model's answers one text at a time, by transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.uri)
    net = AutoModelForSequenceClassification.from_pretrained(model.uri).eval()
    with torch.inference_mode():
        rows = [net(**tokenizer(t, return_tensors="pt", truncation=True, max_length=LENGTH)).logits[0] for t in lines]
    return torch.stack(rows).numpy()


def test_cut_keeps_the_budget_and_every_row() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(0, 60) for _ in range(300)] + [500]
    groups = group_by_length(lengths, 128)
    assert sorted(row for group in groups for row in group) == list(range(301))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= 128
    assert groups[-1] == [300]
    assert group_by_length([], 128) == []


def test_groups_in_few_shapes_keep_the_budget_and_every_row() -> None:
    """Widths 8 to 64; a crowd of short rows is not carried along by a long one."""
    rng = random.Random(0)
    seen = set()
    for _ in range(50):
        lengths = [rng.randint(1, 8) * 8 for _ in range(500)]
        groups = group_by_length(lengths, 1_536, few=True)
        assert sorted(row for group in groups for row in group) == list(range(500))
        widths = [max(lengths[row] for row in group) for group in groups]
        shapes = [(round_up(len(group)), width) for group, width in zip(groups, widths, strict=True)]
        assert all(rows * width <= 1_536 for rows, width in shapes[:-1])
        seen |= {rows * width for rows, width in shapes}
    assert len(seen) <= 32
    assert [len(group) for group in group_by_length([8] * 101 + [512] * 4, 1_536, few=True)] == [101, 3, 1]
    assert [round_up(count) for count in (1, 2, 3, 7, 9, 11, 16, 17, 33)] == [1, 2, 3, 7, 10, 12, 16, 20, 40]
    assert [padded_width(length) for length in (0, 1, 8, 9, 64, 65, 128, 129, 512)] == [
        8,
        8,
        8,
        16,
        64,
        80,
        128,
        160,
        512,
    ]


def test_engine_answers_in_order_like_transformers_alone(model: Model) -> None:
    lines = texts(60)
    engine = Engine(Path(model.uri), threads=1, budget=100)
    found = engine.record(TextTokenizer(Path(model.uri), LENGTH).encode(lines))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain_logits(model, lines), atol=2e-5)
    assert engine.record([]).shape == (0, 3)
    assert np.isfinite(engine.record([[]])).all()


def test_rows_in_bfloat16_come_in_few_shapes(model: Model) -> None:
    engine = Engine(Path(model.uri), precision="bf16")
    shapes = [tuple(engine._padded([[5] * 9] * rows)["input_ids"].shape) for rows in (1, 8, 9, 30)]
    assert shapes == [(1, 16), (8, 16), (10, 16), (32, 16)]
    assert engine._padded([[5] * 31])["input_ids"].shape == (1, LENGTH)
    rows = TextTokenizer(Path(model.uri), LENGTH).encode(texts(61))
    alone = [engine.record([row])[0] for row in rows]
    np.testing.assert_allclose(engine.record(rows), alone, atol=0.05)  # blank rows are nobody's answer
    assert engine._padded([[5] * 9] * 9, blank=False)["input_ids"].shape == (9, 16), "masks are drawn for rows alone"
    exact = Engine(Path(model.uri), precision="fp32")
    assert [tuple(exact._padded([[5] * 9] * rows)["input_ids"].shape) for rows in (1, 9)] == [(1, 9), (9, 9)]


def test_the_head_answers_in_more_digits_than_bfloat16_has(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    tokens = TextTokenizer(Path(model.uri), LENGTH).encode(texts(20))
    exact = Engine(Path(model.uri)).record(tokens)
    monkeypatch.setattr("raypath.components.inference.engine.supports_bf16", lambda _: True)
    engine = Engine(Path(model.uri))
    assert engine.model.bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    found = torch.from_numpy(engine.record(tokens))
    assert (found != found.bfloat16()).float().mean() > 0.9
    np.testing.assert_allclose(found, exact, atol=0.1)


def test_engine_names_a_folder_that_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match=r"no raypath\.json"):
        Engine(tmp_path)
    write_metadata(tmp_path, ModelMetadata(task="text_classification", labels=LABELS, max_length=LENGTH))
    with pytest.raises(DataError, match="does not open"):
        Engine(tmp_path)


def test_metrics_of_three_classes_worked_by_hand() -> None:
    # true 0 0 0 1 1 2, predicted 0 0 1 1 2 2
    targets = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.full((6, 3), 0.2)
    probabilities[np.arange(6), predictions] = 0.6
    metadata = ModelMetadata(task="text_classification", labels=LABELS, max_length=LENGTH)
    found = TextClassification(metadata).metrics(targets, probabilities)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1/bad"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["f1/good"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["f1/ok"] == pytest.approx(2 * 1 / (1 + 2))
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert found["log_loss"] == pytest.approx(-(4 * np.log(0.6) + 2 * np.log(0.2)) / 6)
    assert found["ece"] == pytest.approx(abs(0.6 - 4 / 6))


def test_calibration_error_against_a_slow_loop() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet([1.0, 1.0, 1.0], size=500)
    targets = rng.integers(0, 3, size=500)
    total = 0.0
    for b in range(15):
        rows = [
            n
            for n in range(500)
            if b / 15 <= max(probabilities[n]) < (b + 1) / 15 or (b == 14 and max(probabilities[n]) == 1.0)
        ]
        if rows:
            sure = sum(max(probabilities[n]) for n in rows) / len(rows)
            right = sum(list(probabilities[n]).index(max(probabilities[n])) == targets[n] for n in rows) / len(rows)
            total += len(rows) / 500 * abs(sure - right)
    assert calibration_error(targets, probabilities) == pytest.approx(total)


def test_statistics_of_a_resample_are_those_of_its_rows() -> None:
    rng = np.random.default_rng(1)
    cells = np.array([0, 1, 4, 5, 6, 8])
    draws = np.vstack([rng.integers(1, 9, size=(5, len(cells))), [3, 1, 2, 0, 0, 0]])  # the last misses a class
    for drawn, (accuracy, macro) in zip(draws, statistics(draws, cells, 3), strict=True):
        targets, predictions = np.repeat(cells // 3, drawn), np.repeat(cells % 3, drawn)
        assert accuracy == pytest.approx((targets == predictions).mean())
        assert macro == pytest.approx(f1_score(targets, predictions, average="macro"))


def test_intervals_agree_with_resampling_rows_one_by_one() -> None:
    rng = np.random.default_rng(7)
    targets = rng.choice(3, size=300, p=[0.6, 0.3, 0.1])
    predictions = np.where(rng.random(300) < 0.75, targets, rng.integers(0, 3, 300))

    def macro(rows: np.ndarray) -> float:
        counts = np.bincount(3 * targets[rows] + predictions[rows], minlength=9).reshape(3, 3)
        return float((2 * counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1))).mean())

    assert macro(np.arange(300)) == pytest.approx(f1_score(targets, predictions, average="macro"))
    slow = []
    for _ in range(1500):
        rows = rng.integers(0, 300, 300)
        slow.append([(targets[rows] == predictions[rows]).mean(), macro(rows)])
    wanted = np.quantile(np.array(slow), [0.025, 0.975], axis=0)
    found = intervals(targets, predictions, 3, 4000, seed=0)
    got = [[found[f"{n}_{side}"] for n in ("accuracy", "macro_f1")] for side in ("low", "high")]
    np.testing.assert_allclose(got, wanted, atol=0.01)
    assert found == intervals(targets, predictions, 3, 4000, seed=0)
    assert found != intervals(targets, predictions, 3, 4000, seed=1)
    assert intervals(targets, predictions, 3, 0, seed=0) == {}


def test_evaluate_writes_and_reports_what_the_model_answers(model, data, make_context) -> None:
    ctx = make_context("evaluate")
    report = evaluate.fn(ctx, model, data, EvaluateParams(resamples=200))
    logits = plain_logits(model, texts(200))
    names = [LABELS[(n * n) % 3] for n in range(200)]
    right = [LABELS[k] == name for k, name in zip(logits.argmax(axis=1), names, strict=True)]
    assert report.metrics["accuracy"] == pytest.approx(np.mean(right))
    assert report.metrics["accuracy_low"] <= report.metrics["accuracy"] <= report.metrics["accuracy_high"]
    assert report.metrics["macro_f1_low"] <= report.metrics["macro_f1"] <= report.metrics["macro_f1_high"]
    assert report.model == model
    assert report.data == data
    rows = pq.read_table(ctx.out / "predictions.parquet")
    assert rows.column_names == ["row", "label", "predicted", "score"]
    assert rows["label"].to_pylist() == names
    assert rows["predicted"].to_pylist() == [LABELS[k] for k in logits.argmax(axis=1)]
    written = json.loads((ctx.out / "metrics.json").read_text())
    facts = {"rows": 200, "model": model.digest, "test": data.digest, "labels": list(LABELS)}
    assert written == {**facts, "metrics": report.metrics}
    assert {p.name for p in (ctx.out / "plots").iterdir()} == {"confusion.png", "reliability.png", "f1_per_class.png"}


def test_intervals_are_drawn_by_the_seed_and_left_out_with_the_plots(data, make_context, tmp_path) -> None:
    model = tiny_classifier(tmp_path / "tiny", LABELS[::-1])  # its one class has rows, so that accuracy is not 0
    found = [evaluate.fn(make_context("evaluate", seed=s), model, data, EvaluateParams(resamples=50)) for s in (1, 2)]
    assert found[0].metrics["accuracy"] == found[1].metrics["accuracy"] > 0
    assert found[0].metrics["macro_f1_low"] != found[1].metrics["macro_f1_low"]
    ctx = make_context("evaluate")
    bare = evaluate.fn(ctx, model, data, EvaluateParams(resamples=0, plots=False)).metrics
    assert bare == {name: value for name, value in found[0].metrics.items() if not name.endswith(("_low", "_high"))}
    assert not (ctx.out / "plots").exists()


def test_text_is_encoded_again_for_a_model_with_another_tokenizer(model, data) -> None:
    folder = Path(model.uri)
    by_tokens = score(folder, data, 1)
    by_text = score(folder, data.model_copy(update={"tokenizer": "another"}), 1)
    np.testing.assert_array_equal(by_tokens[0], by_text[0])
    np.testing.assert_allclose(by_tokens[1], by_text[1], atol=1e-6)


def test_a_label_the_model_never_saw_is_refused_without_naming_it(model, tmp_path, make_context) -> None:
    data = tiny_dataset(tmp_path / "strange", model, rows=4, labels=["good", "bad", "private", "ok"])
    with pytest.raises(DataError, match="never saw") as caught:
        evaluate.fn(make_context("evaluate"), model, data, EvaluateParams())
    assert "private" not in str(caught.value)


def test_few_rows_and_classes_that_are_never_predicted_are_warned_of(
    model: Model, tmp_path: Path, make_context, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny_dataset(tmp_path / "few", model, rows=12)
    evaluate.fn(make_context("evaluate"), model, data, EvaluateParams(resamples=0, plots=False))
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said[-1].startswith("test has only 12 rows: its metrics are a rough estimate")
    task = TextClassification(ModelMetadata(task="text_classification", labels=LABELS, max_length=LENGTH))
    sure = np.eye(3)[[0, 0, 2]]
    assert "never predicts class good on the test split; try" in task.warnings(np.array([0, 1, 2]), sure)[0]
    assert "classes bad, ok on" in task.warnings(np.array([0, 1, 2]), np.eye(3)[[1, 1, 1]])[0]
    assert task.warnings(np.array([0, 0, 2]), sure) == []
    sets = MultiLabel(ModelMetadata(task="text_classification", labels=LABELS, max_length=LENGTH, label_kind="set"))
    assert "class ok on" in sets.warnings(np.array([[1, 0, 1], [0, 0, 0]]), np.array([[0.9, 0.9, 0.1], [0.9, 0, 0]]))[0]


def test_an_empty_part_is_refused(model, tmp_path, make_context) -> None:
    data = tiny_dataset(tmp_path / "none", model, rows=0)
    with pytest.raises(DataError, match="no rows"):
        evaluate.fn(make_context("evaluate"), model, data, EvaluateParams())


@pytest.mark.parametrize(
    "labels",
    [("great", "other"), ("好评", "😡😡", "a$b$", "x\ny", "", "l" * 90), tuple(f"intent {n}" for n in range(1000))],
    ids=["two", "strange", "thousand"],
)
def test_plots_of_any_labels_draw_without_a_warning(labels: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, len(labels)))
    targets = rng.integers(0, len(labels), 400)
    metadata = ModelMetadata(task="text_classification", labels=labels, max_length=LENGTH)
    probabilities = TextClassification(metadata).decode(logits)
    predictions = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in {
            "confusion": plots.confusion(targets, predictions, labels),
            "sure": plots.confusion(targets, targets, labels),
            "reliability": plots.reliability(targets, probabilities, 0.1),
            "f1": plots.per_class(targets, [0.5] * len(labels), labels),
        }.items():
            assert style.save(figure, tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_label_without_glyphs_is_shown_by_its_number() -> None:
    assert style.shown("好评", 4, 20) == "class 4"
    assert style.shown("fine", 4, 20) == "fine"
    assert style.shown("abcdefgh", 4, 5) == "abcd…"


def test_no_class_hides_the_metric_of_another() -> None:
    labels = ("a?", "b?", "class_1", "class_0", "class_0_", "class_2")
    found = _tracked({f"f1/{label}": float(n) for n, label in enumerate(labels)}, labels)
    assert found["f1/class_1"] == 2.0
    assert found["f1/class_0"] == 3.0
    assert sorted(found.values()) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_tracked_keys_are_such_that_mlflow_takes_them() -> None:
    from mlflow.utils.validation import _validate_metric_name

    labels = ("good", "差评", "😡", "../x", "a/b", "c:d", " ", "")
    found = _tracked({"macro_f1": 0.5} | {f"f1/{label}": 0.1 for label in labels}, labels)
    for key in found:
        _validate_metric_name(key)
    assert found["f1/good"] == 0.1
    assert len(found) == 9
    assert _tracked({f"f1/{n}": 0.1 for n in range(60)} | {"ece": 0.1}, tuple(map(str, range(60)))) == {"ece": 0.1}
    assert len(_tracked({f"f1/{n}": 0.1 for n in range(50)}, tuple(map(str, range(50))))) == 50
