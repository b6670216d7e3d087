"""Errors and warnings of tasks: each in full, with what to do; and the schemas of their requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from raypath.components.core.columns import Column
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks import catalog, texts
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import load_task, task_type
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.text_classification import TextClassification
from tests.raised import raised

LABELS = ("a", "b", "c")


def _metadata(task: str = "text_classification", kind: str = "string", **fields: Any) -> ModelMetadata:
    return ModelMetadata(**{"task": task, "labels": LABELS, "label_kind": kind, "max_length": 8, **fields})


def _load(task: str = "text_classification", kind: str = "string", **objective: Any) -> Any:
    return load_task(_metadata(task, kind), ObjectiveParams(**objective))


class TextsOnly(TextClassification):
    """A task that takes texts and categories alone."""

    name = "texts_only"
    input_kinds = frozenset({"text", "category"})


def _inputs(*kinds: str) -> Any:
    return TextsOnly(_metadata(columns=tuple(Column(name=f"c{n}", kind=kind) for n, kind in enumerate(kinds))))


language_model = _load("language_model", "none")
CASES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: _load(kind="number"),
        "DataError: task text_classification got labels of kind number; wanted class; set -s "
        "read.kind=class|set|number, or another finetune.task",
    ),
    (
        lambda: _load("regression"),
        "DataError: task regression got labels of kind string; wanted number; set -s "
        "read.kind=class|set|number, or another finetune.task",
    ),
    (
        lambda: _inputs("text", "number"),
        "DataError: task texts_only got the input c1 of kind number; wanted category or text; set -s "
        "read.kinds.c1=, or another finetune.task",
    ),
    (
        lambda: _load("regression", "number", focal=2.0),
        "ParamsError: task regression does not support objective.focal; leave finetune.objective.focal "
        "out; it takes none",
    ),
    (
        lambda: _load(mask=0.3),
        "ParamsError: task text_classification does not support objective.mask; leave "
        "finetune.objective.mask out; it takes class_weights, focal, label_smoothing, threshold",
    ),
    (
        lambda: _load(threshold="valid"),
        "ParamsError: objective.threshold=valid takes two classes, or several labels a row; got 3 "
        "classes; leave finetune.objective.threshold out",
    ),
    (
        lambda: _load("text_clasification"),
        "ParamsError: unknown task text_clasification; use one of text_classification, multi_label, "
        "regression, language_model, text_generation, text_to_text, preference, or package.module:Class",
    ),
    (
        lambda: _load().check_targets(np.array([0, 3]), "valid"),
        "DataError: targets of valid go from 0 to 3; wanted 0 to 2, the model's classes; train on the "
        "rows that the labels come from",
    ),
    (
        lambda: _load().check_targets(np.array([-1, 2]), "train"),
        "DataError: targets of train go from -1 to 2; wanted 0 to 2, the model's classes; train on the "
        "rows that the labels come from",
    ),
    (
        lambda: _load(kind="set").check_targets(np.zeros((2, 2)), "valid"),
        "DataError: targets of valid of shape (2, 2); wanted 3 zeros and ones a row, one a class of the "
        "model; train on the rows that the labels come from",
    ),
    (
        lambda: _load(kind="set").check_targets(np.full((2, 3), 0.5), "train"),
        "DataError: targets of train of shape (2, 3); wanted 3 zeros and ones a row, one a class of the "
        "model; train on the rows that the labels come from",
    ),
    (
        lambda: _load(kind="set").check_targets(np.zeros(3), "train"),
        "DataError: targets of train of shape (3,); wanted 3 zeros and ones a row, one a class of the "
        "model; train on the rows that the labels come from",
    ),
    (
        lambda: _load("regression", "number").check_targets(np.zeros((2, 2)), "valid"),
        "DataError: targets of valid of shape (2, 2); wanted 3 numbers a row: a, b, c; name as many "
        "columns with -s read.label=",
    ),
    (
        lambda: _load("regression", "number").check_targets(np.zeros(3), "valid"),
        "DataError: targets of valid of shape (3,); wanted 3 numbers a row: a, b, c; name as many "
        "columns with -s read.label=",
    ),
    (
        lambda: _load("regression", "number").check_targets(np.array([[0, 0, 0], [0, np.inf, 0]]), "valid"),
        "DataError: target b of row 1 of valid is NaN or infinite; wanted a number; leave such rows out of the data",
    ),
    (
        lambda: _load().score("f2", {"macro_f1": 1.0, "accuracy": 1.0, "f1/a": 1.0}),
        "ParamsError: there is no metric f2; use one of macro_f1, accuracy",
    ),
    (
        lambda: language_model.request,
        "ParamsError: a language model cannot be evaluated, registered or served; fine-tune from it "
        "first: finetune(..., start=model)",
    ),
    (
        lambda: type(language_model).response,
        "ParamsError: a language model cannot be evaluated, registered or served; fine-tune from it "
        "first: finetune(..., start=model)",
    ),
    (
        lambda: language_model.inputs({}, np.random.default_rng(0)),
        "ParamsError: a language model cannot be evaluated, registered or served; fine-tune from it "
        "first: finetune(..., start=model)",
    ),
    (
        lambda: language_model.forward(None, {}),
        "ParamsError: a language model cannot be evaluated, registered or served; fine-tune from it "
        "first: finetune(..., start=model)",
    ),
    (
        lambda: language_model.metrics(np.zeros(1), np.zeros((1, 3))),
        "DataError: the validation split has no token to predict; give longer texts",
    ),
    (
        lambda: catalog.check_task(_metadata("someone.else:Task" + "x" * 200)),
        "DataError: the model names the task "
        "'someone.else:Taskxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', "
        "which is neither built in nor listed in serve.tasks, predict.tasks or $RAYPATH_TASKS; list it "
        "there if its code is yours",
    ),
    (lambda: texts.as_texts(None), "DataError: texts is a NoneType; give a str or a list of str"),  # type: ignore[arg-type]
    (lambda: texts.as_texts(["a", 3]), "DataError: texts[1] is a int; give a str or a list of str"),  # type: ignore[list-item]
    (
        lambda: texts.as_texts(["a", "b\udfff"]),
        "DataError: texts[1] has half of a surrogate pair; decode it as UTF-8 or UTF-16",
    ),
]


@pytest.mark.parametrize(("call", "text"), CASES)
def test_an_error_of_a_task(call: Callable[[], Any], text: str) -> None:
    assert raised(call) == text


def test_what_a_task_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    _inputs("text", "category")
    _load().check_targets(np.array([0, 2]), "train")
    _load(kind="set").check_targets(np.eye(3), "train")
    _load("regression", "number").check_targets(np.zeros((1, 3)), "train")
    load_task(_metadata(labels=("a", "b")), ObjectiveParams(threshold="valid", focal=1, class_weights="balanced"))
    _load(kind="set", threshold="valid", label_smoothing=0.1)
    _load("language_model", "none", mask=0.3)
    names = [
        "text_classification",
        "multi_label",
        "regression",
        "language_model",
        "text_generation",
        "text_to_text",
        "preference",
    ]
    assert list(catalog.TASKS) == names
    for name in (*names, catalog.TASKS["regression"], f"{__name__}:TextsOnly"):
        catalog.check_task(_metadata(name))
    other = _metadata("other.task:Task")
    catalog.check_task(other, ["other.task:Task"])
    monkeypatch.setenv("RAYPATH_TASKS", " a:B ,,other.task:Task")
    assert catalog.listed_tasks() == ("a:B", "other.task:Task")
    catalog.check_task(other)


def test_facts_of_the_tasks() -> None:
    facts = {
        name: (kind.metric, kind.problem, kind.plain, kind.auto, sorted(kind.lower_is_better), sorted(kind.objectives))
        for name in catalog.TASKS
        for kind in [task_type(name)]
    }
    sequence, four = "AutoModelForSequenceClassification", ["class_weights", "focal", "label_smoothing", "threshold"]
    assert facts == {
        "text_classification": (
            "macro_f1",
            "single_label_classification",
            "label",
            sequence,
            ["ece", "log_loss"],
            four,
        ),
        "multi_label": (
            "mean_average_precision",
            "multi_label_classification",
            "labels",
            sequence,
            ["ece", "hamming_loss", "log_loss"],
            four,
        ),
        "regression": ("r2", "regression", "values", sequence, ["mae", "mse", "rmse"], []),
        "language_model": (
            "perplexity",
            None,
            "outputs",
            "AutoModelForMaskedLM",
            ["loss", "perplexity"],
            ["mask"],
        ),
        "text_generation": ("loss", None, "outputs", "AutoModelForCausalLM", ["loss", "perplexity"], []),
        "text_to_text": ("loss", None, "outputs", "AutoModelForSeq2SeqLM", ["loss", "perplexity"], []),
        "preference": (
            "reward_accuracy",
            None,
            "outputs",
            "AutoModelForCausalLM",
            ["loss", "perplexity"],
            ["beta", "class_weights", "label_smoothing", "margin", "preference"],
        ),
    }
    kinds = {name: sorted(map(str, task_type(name).kinds)) for name in catalog.TASKS}
    assert kinds["text_classification"] == ["bool", "class", "int", "string"]
    assert (kinds["multi_label"], kinds["regression"]) == (["set"], ["number"])
    assert kinds["language_model"] == ["bool", "class", "int", "none", "number", "set", "string"]
    assert (Task.plain, Task.metric, Task.kinds) == ("outputs", "", task_type("text_classification").kinds)
    assert Task.example_request == {"text": ["A lovely cup of tea"]}


@pytest.mark.parametrize(
    ("classes", "names"),
    [(1, "class l1"), (2, "classes l1, l2"), (5, "classes l1, l2, l3, l4, l5")]
    + [(n, f"classes l1, l2, l3, l4, l5 and {n - 5} others") for n in (6, 8)],
)
def test_classes_that_are_never_predicted_are_named(classes: int, names: str) -> None:
    labels = tuple(f"l{n}" for n in range(classes + 1))
    made = load_task(_metadata(labels=labels))
    decoded = np.tile(np.eye(classes + 1)[0], (classes + 1, 1))
    advice = "try more epochs (finetune.epochs), -s finetune.objective.class_weights=balanced or more rows"
    text = f"the model never predicts {names} on the test split; {advice}"
    assert made.warnings(np.arange(classes + 1), decoded) == [text]
    assert made.warnings(np.zeros(2, int), decoded[:2]) == []


def test_a_threshold_belongs_to_the_class_from_it_on() -> None:
    made = load_task(_metadata(labels=("no", "yes"), thresholds=(0.25,)))
    assert made.predicted(np.array([[0.75, 0.25], [0.76, 0.24]])).tolist() == [1, 0]
    sets = load_task(_metadata(kind="set", thresholds=(0.25, 0.5, 0.75)))
    assert sets.predicted(np.array([[0.25, 0.49, 0.75]])).tolist() == [[1, 0, 1]]
    plain = load_task(_metadata(kind="set"))
    assert plain.predicted(np.array([[0.5, 0.49, 0.51]])).tolist() == [[1, 0, 1]]


def test_numbers_agree_up_to_a_tenth_of_a_standard_deviation() -> None:
    names = ("x", "y")
    fields: Any = {"labels": names, "means": (0.0, 0.0), "scales": (10.0, 1.0)}
    one = load_task(_metadata("regression", "number", **fields))
    other = load_task(_metadata("regression", "number", labels=names[::-1]))
    found = one.agrees(np.zeros((3, 2)), other, np.array([[0.0, 1.0], [0.09, -0.9], [0.0, 1.01]]))
    assert found == [True, True, False]
    assert one.agrees(np.zeros((1, 2)), other, np.array([[0.11, 0.0]])) == [False]


def test_classes_agree_by_name() -> None:
    one, other = load_task(_metadata()), load_task(_metadata(labels=("c", "b", "a")))
    assert one.agrees(np.eye(3), other, np.eye(3)) == [False, True, False]
