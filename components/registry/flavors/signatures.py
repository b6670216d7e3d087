"""Arguments of `mlflow.pyfunc.save_model` by task: code, signature, example and requirements."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Model
from raypath.components.core.columns import TEXT, Column, is_single_text
from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.catalog import kind_of
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import task_type

LIBRARIES = ("torch", "transformers", "numpy", "pandas")
EXAMPLE = ["A lovely cup of tea", "Arrived broken"]
"""Input example: made up, never a row of the user's data."""
CONVERSATION = {"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0.0, "max_tokens": 64}
"""Input example of a language model."""


def pyfunc_options(model: Model, columns: Sequence[Column]) -> dict[str, Any]:
    """Return the arguments of `mlflow.pyfunc.save_model` that depend on the task. columns: inputs of the model."""
    kind, here = task_type(model.task, model.label_kind), Path(__file__)
    if kind.generates_text:
        return {
            "python_model": str(here.parents[2] / "inference" / "generation" / "pyfunc_chat.py"),
            "signature": _chat_signature(),
            "input_example": CONVERSATION,
            "metadata": {"task": "llm/v1/chat"},
            "pip_requirements": _requirements((*LIBRARIES, "raypath")),
        }
    import pandas as pd  # type: ignore[import-untyped]

    return {
        "python_model": str(here.with_name("pyfunc_model.py")),
        "signature": _signature(model, kind, columns),
        "input_example": pd.DataFrame(_example(columns)),
        "model_config": {"answer": kind.plain, "auto": kind.auto},
        "pip_requirements": _requirements(LIBRARIES),
    }


def _requirements(names: Sequence[str]) -> list[str]:
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _example(columns: Sequence[Column]) -> dict[str, list[Any]]:
    """Return made-up input rows by column name."""
    if is_single_text(columns):
        return {TEXT: EXAMPLE}
    return {column.name: [kind_of(column.kind).example] for column in columns}


def _chat_signature() -> Any:
    """Return MLflow's own signature of a chat model: OpenAI's request and response."""
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    return ModelSignature(CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA)


def _signature(model: Model, kind: type[Task], columns: Sequence[Column]) -> Any:
    """Return the signature: the input columns in, the output columns of pyfunc_model.py for this task out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    label = {LabelKind.INT: DataType.long, LabelKind.BOOL: DataType.boolean}.get(model.label_kind, DataType.string)
    answers: dict[str, list[tuple[Any, str]]] = {
        "label": [(label, "label"), (DataType.double, "score")],
        "labels": [(Array(DataType.string), "labels"), (Array(DataType.double), "scores")],
        "values": [(DataType.double, name) for name in model.labels],
        "outputs": [(Array(DataType.double), "outputs")],
    }
    outputs = Schema([ColSpec(*column) for column in answers[kind.plain]])
    types = {"number": DataType.double, "boolean": DataType.boolean, "set": Array(DataType.string)}
    single = is_single_text(columns)
    inputs = [
        ColSpec(types.get(column.kind, DataType.string), TEXT if single else column.name, required=single)
        for column in columns
    ]
    return ModelSignature(Schema(inputs), outputs)
