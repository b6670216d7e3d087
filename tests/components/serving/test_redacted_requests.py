"""Parity of training and service: what a model reads of a request is what the step `redact` writes of the same text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.exceptions import HTTPException

from raypath.components import Context, DataError, Dataset
from raypath.components.core.columns import Column, Redaction
from raypath.components.data.rendering import Renderer
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.models.metadata import ModelMetadata
from raypath.components.privacy.keys import key_folder
from raypath.components.privacy.redactor import redactor_of
from raypath.components.redact import RedactParams, redact
from raypath.components.serving.api.open_inference.inputs import InferInput, texts_of
from raypath.components.serving.api.openai.chat.prompts import chat_prompt, completion_prompts
from raypath.components.serving.api.openai.chat.requests import ChatRequest, CompletionRequest
from raypath.components.tasks.catalog import load_task
from tests.components.privacy.made_up import texts

TITLE, BODY = Column(name="title", stored="input.title"), Column(name="body", stored="input.body")
TEXTS = [row.text for language in ("en", "zh") for row in texts(language, 40, seed=7)]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are made in a home."""
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))


def trained(
    make_context: Callable[..., Context],
    folder: Path,
    rows: list[dict[str, Any]],
    columns: tuple[Column, ...] = (),
    **more: Any,
) -> tuple[Dataset, list[dict[str, Any]]]:
    """The dataset that `redact` makes of these rows, and its rows."""
    ctx, table = make_context("redact"), pa.Table.from_pylist(rows)
    with TableWriter(folder / "source", table.schema) as writer:
        writer.write(table)
    data = Dataset(uri=str(folder / "source"), rows=len(rows), columns=columns)
    made = redact.fn(ctx, data, RedactParams(enabled=True, **more))
    return made, pq.read_table(ctx.out / made.uri).to_pylist()


def task_of(redaction: Redaction | None, columns: tuple[Column, ...] = (), form: Any = "text") -> Any:
    """The task of a model that was trained on such a dataset, after its metadata was written and read."""
    metadata = ModelMetadata(
        task="text_classification", labels=("a", "b"), max_length=64, columns=columns, form=form, redaction=redaction
    )
    return load_task(ModelMetadata.model_validate_json(metadata.model_dump_json()))


@pytest.mark.parametrize("replacement", ["type", "mask", "hash", "surrogate"])
def test_every_route_reads_what_training_read(
    replacement: str, make_context: Callable[..., Context], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYPATH_REDACTION_KEY", "5e" * 32)
    made, rows = trained(make_context, tmp_path, [{"text": text} for text in TEXTS], replacement=replacement)
    expected = [row["text"] for row in rows]
    assert sum(text != before for text, before in zip(expected, TEXTS, strict=True)) > 40
    task = task_of(made.redaction)
    request = task.request_type.model_validate({"text": TEXTS})
    assert task.texts(request) == expected
    tensor = InferInput(name="text", shape=[len(TEXTS)], datatype="BYTES", data=TEXTS)
    assert texts_of(task, [tensor]) == expected


def test_columns_are_redacted_before_they_are_rendered(make_context: Callable[..., Context], tmp_path: Path) -> None:
    rows = [{"input.title": first, "input.body": last} for first, last in zip(TEXTS, reversed(TEXTS), strict=True)]
    made, found = trained(make_context, tmp_path, rows, (TITLE, BODY))
    expected = Renderer((TITLE, BODY), "fields").table(pa.Table.from_pylist(found))
    task = task_of(made.redaction, (TITLE, BODY), "fields")
    given = [{"title": row["input.title"], "body": row["input.body"]} for row in rows]
    assert task.texts(task.request_type.model_validate({"rows": given})) == expected
    tensors = [InferInput(name=n, shape=[len(given)], datatype="BYTES", data=[r[n] for r in given]) for n in given[0]]
    assert texts_of(task, tensors) == expected


class Template:
    """Chat template that returns what it is given."""

    call_form = takes_tools = None
    vocabulary = 1 << 20

    def encode_prompt(self, messages: Any, tools: Any = (), lead: str = "") -> Any:
        return [dict(message) for message in messages]

    def encode_text(self, text: str) -> Any:
        return [ord(sign) for sign in text]


def test_messages_are_redacted_as_in_training(make_context: Callable[..., Context], tmp_path: Path) -> None:
    column = Column(name="messages", kind="messages", stored="input.messages")
    talks = [[{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}] for text in TEXTS]
    rows = [{"input.messages": json.dumps({"messages": talk})} for talk in talks]
    made, found = trained(make_context, tmp_path, rows, (column,))
    redactor = redactor_of(made.redaction, key_folder(None))
    assert redactor is not None
    template: Any = Template()
    for talk, row in zip(talks, found, strict=True):
        given = ChatRequest(model="m", messages=talk)
        assert chat_prompt(template, given, redactor) == json.loads(row["input.messages"])["messages"]
    prompts = completion_prompts(template, CompletionRequest(model="m", prompt=TEXTS), redactor)
    assert ["".join(map(chr, ids)) for ids in prompts] == redactor.texts(TEXTS)
    with pytest.raises(HTTPException, match="token ids"):
        completion_prompts(template, CompletionRequest(model="m", prompt=[1, 2]), redactor)


def test_a_model_without_redaction_reads_texts_as_they_are() -> None:
    task = task_of(None)
    assert task.redactor is None
    assert task.texts(task.request_type.model_validate({"text": "a@b.de"})) == ["a@b.de"]


def test_other_recognisers_or_a_missing_key_do_not_load(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="version 0 of the recognisers"):
        redactor_of(Redaction(version=0, kinds=("email",)), tmp_path)
    with pytest.raises(DataError, match="redaction key abcd is not here"):
        redactor_of(Redaction(version=1, kinds=("email",), replacement="hash", key="abcd"), tmp_path)
