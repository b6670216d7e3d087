"""Input tensors of the Open Inference Protocol: one for each input column of a model, by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from raypath.components.core.columns import TEXT, inputs_of, is_single_text
from raypath.components.core.errors import DataError
from raypath.components.data.columns.catalog import kind_of

if TYPE_CHECKING:
    from raypath.components.tasks.base import Task

MAX_INPUTS = 256
NUMERIC = ("FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
Size = Annotated[int, Field(ge=0, lt=1 << 31)]
FORMS = ("flat", "rows", "values")
"""Forms of an input's data, named in errors."""


def _form(given: Any) -> str:
    first = given[0] if isinstance(given, list) and given else ""
    return "rows" if isinstance(first, list) else "values" if isinstance(first, bool | int | float) else "flat"


Data = Annotated[
    Annotated[Annotated[list[str], Field(fail_fast=True)], Tag("flat")]
    | Annotated[Annotated[list[bool | int | float], Field(fail_fast=True)], Tag("values")]
    | Annotated[Annotated[list[Annotated[list[str], Field(fail_fast=True)]], Field(fail_fast=True)], Tag("rows")],
    Discriminator(_form),
]


class InferInput(BaseModel):
    """An input column, one element per row."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=256)
    shape: list[Size] = Field(min_length=1, max_length=2)
    datatype: str = Field(max_length=8)
    data: Data
    """Flat in row-major order, or nested as `shape` says."""


def texts_of(task: Task, inputs: Sequence[InferInput]) -> list[str]:
    """Return the rows of a request as texts. Raises HTTP 422 for tensors that do not fit the model's input columns."""
    given = {tensor.name: tensor for tensor in inputs}
    wanted = tensors_of(task)
    if len(given) < len(inputs) or set(given) != set(wanted):
        names = ", ".join(wanted)
        raise HTTPException(422, f"the inputs do not have the names of the model's; wanted {names}, each once")
    values = {name: _elements(given[name], datatype) for name, datatype in wanted.items()}
    if len({len(column) for column in values.values()}) > 1:
        raise HTTPException(422, "the inputs have different numbers of rows")
    if is_single_text(task.metadata.columns):
        return task.redacted(values[TEXT])
    try:
        return task.renderer.values(values)
    except DataError as error:
        raise HTTPException(422, f"{error.what}; {error.fix}") from None


def tensors_of(task: Task) -> dict[str, str]:
    """Return the datatype of each input tensor by name."""
    if is_single_text(task.metadata.columns):
        return {TEXT: "BYTES"}
    return {column.name: kind_of(column.kind).datatype for column in inputs_of(task.metadata.columns)}


def _elements(tensor: InferInput, datatype: str) -> list[Any]:
    """Return the elements of a tensor, flat. Raises HTTP 422 unless its type, shape and data agree."""
    rows = [row for row in tensor.data if isinstance(row, list)]
    found: list[Any] = [element for row in rows for element in row] if rows else list(tensor.data)
    nested = not rows or (len(tensor.shape) == 2 and {len(row) for row in rows} == {tensor.shape[1]})
    if not nested or math.prod(tensor.shape) != len(found):
        raise HTTPException(422, f"the shape does not fit {len(found)} elements")
    fits = tensor.datatype in NUMERIC if datatype == "FP64" else tensor.datatype == datatype
    if not fits or (found and isinstance(found[0], str) != (datatype == "BYTES")):
        raise HTTPException(422, f"an input has the wrong datatype; wanted {datatype}")
    return found
