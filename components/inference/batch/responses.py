"""Worker of a batch generation: responds to the requests of a chunk, each with its own settings and tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.batch.chunk_worker import ChunkJob, ChunkWorker
from raypath.components.inference.generation.local_chat import ChatAnswer, LocalChat
from raypath.components.inference.generation.requests import Request

RESPONSES = pa.schema(
    [
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("error", pa.string()),
    ]
)
"""Columns of responses; a request with an error has no answer."""


@dataclass(frozen=True)
class GenerationJob(ChunkJob):
    """Configuration of the workers of a batch generation."""

    settings: Mapping[str, Any]
    """Sampling settings of requests that have none of their own."""


class Responder(ChunkWorker[GenerationJob]):
    """Worker with a loaded language model."""

    def load(self, folder: Path) -> None:
        """Load the model, or the adapter and its base."""
        self.model = LocalChat(folder, threads=self.job.threads)

    def predict(self, table: pa.Table) -> pa.Table:
        """Replace `request` by the columns of the response."""
        requests = [Request.loads(text) for text in table["request"].to_pylist()]
        rows: list[dict[str, Any]] = [{"error": each.error} for each in requests]
        for group in _alike(requests):
            self._respond(requests, group, rows)
        made = pa.Table.from_pylist(rows, RESPONSES)
        table = table.drop_columns(["request"])
        for name in made.column_names:
            table = table.append_column(name, made[name])
        return table

    def _respond(self, requests: Sequence[Request], group: Sequence[int], rows: list[dict[str, Any]]) -> None:
        """Respond to requests of the same settings; one that the model cannot take gets an error of its own."""
        first = requests[group[0]]
        try:
            answers = self.model.generate(
                [requests[n].messages for n in group], tools=first.tools, **{**self.job.settings, **first.settings}
            )
        except (DataError, ParamsError) as error:
            if len(group) == 1:
                # Its number is that within this group.
                what = error.what.removeprefix("conversation 0 ").replace("prompt 0 ", "the prompt ")
                rows[group[0]] = {"error": what}
                return
            for half in (group[: len(group) // 2], group[len(group) // 2 :]):
                self._respond(requests, half, rows)
            return
        for n, answer in zip(group, answers, strict=True):
            rows[n] = _row(answer)


def _row(answer: ChatAnswer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "finish_reason": answer.finish,
        "prompt_tokens": answer.prompt_tokens,
        "answer_tokens": answer.tokens,
        "error": "",
    }


def _alike(requests: Sequence[Request]) -> list[list[int]]:
    """Group the valid requests with the same tools and settings, which go to the engine together."""
    groups: dict[str, list[int]] = {}
    for n, each in enumerate(requests):
        if not each.error:
            groups.setdefault(json.dumps([each.tools, each.settings], sort_keys=True), []).append(n)
    return list(groups.values())
