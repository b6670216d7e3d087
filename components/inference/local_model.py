"""A model in this process: the endpoint's tokenizer, engine and task, without a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raypath.components.core.columns import inputs_of, is_single_text
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.tasks.responses import Embeddings, Predictions
from raypath.components.tasks.texts import Inputs, as_rows, as_texts

if TYPE_CHECKING:
    from raypath.components.inference.engine import Engine
    from raypath.components.models.metadata import ModelMetadata

DEVICES = ("auto", "cpu", "cuda")
CHUNK = 1_024
"""Texts that are tokenized and predicted together, which bounds the memory for a long list."""


class LocalModel:
    """A loaded model; `raypath.load` makes one. Calls from several threads take turns.

    folder: of the model. name, version: as the registry has them. device: cpu, cuda or auto. threads: 0 leaves torch's.
    Raises DataError for a folder that is not a model of Raypath, ParamsError for a wrong device or number of threads.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        version: int,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 0,
    ) -> None:
        from raypath.components.data.tokenization.tokenizer import TextTokenizer
        from raypath.components.inference.engine import Engine

        card = check_folder(folder, device, threads)
        self.folder, self.name, self.version = folder, name, version
        self.labels = card.labels
        """Classes, or the names of the targets."""
        self.max_length = card.max_length
        """Tokens of a text that are read."""
        self.inputs = tuple(column.name for column in inputs_of(card.columns))
        """Names of the input columns."""
        self._single = is_single_text(card.columns)
        self._tokenizer = TextTokenizer(folder, card.max_length)
        self._engine = Engine(folder, threads, device=device)
        self._lock = threading.Lock()
        self._embedder: Engine | None = None

    @property
    def precision(self) -> str:
        """Precision of the matmuls: fp32, bf16, openvino or openvino-int8."""
        return str(self._engine.precision)

    def predict(self, texts: Inputs) -> Predictions:
        """Predict one text or several; one prediction each, in order.

        For a model with several input columns give a dict for each row, such as {"title": "...", "body": "..."}.
        Raises DataError for what is not a text or such a row.

        Example:
            raypath.load("models:/reviews@champion").predict("Great taste")[0].label
        """
        task, found = self._engine.task, []
        for chunk in _chunks(self._rendered(texts)):
            with self._lock:
                recorded = self._engine.record(self._tokenizer.encode(chunk))
            found += task.predictions(task.decode(recorded))
        return Predictions.of(self.name, self.version, found)

    def _rendered(self, given: Inputs) -> list[str]:
        rows = as_rows(given)
        if self._single and rows is None:
            return self._engine.task.redacted(as_texts(given))  # type: ignore[arg-type]
        if self._single or rows is None:
            wanted = "a text, or a list of texts" if self._single else f"a dict per row with {', '.join(self.inputs)}"
            raise DataError("the input does not fit the model", fix=f"give {wanted}")
        return self._engine.task.rows(rows)

    def embed(self, texts: str | Sequence[str]) -> Embeddings:
        """Embed one text or several with the fine-tuned encoder; vectors have length one.

        Raises DataError for what is not a text, and for a model without an encoder below a head.
        """
        vectors: list[list[float]] = []
        tokens = 0
        for chunk in _chunks(self._engine.task.redacted(as_texts(texts))):
            rows = self._tokenizer.encode(chunk)
            tokens += sum(map(len, rows))
            with self._lock:
                vectors += self._encoder().record(rows).tolist()
        return Embeddings(model=self.name, version=self.version, vectors=vectors, tokens=tokens)

    def _encoder(self) -> Engine:
        from raypath.components.inference.pooling import embedder

        if self._embedder is None:
            self._embedder = embedder(self._engine, self.folder)
        return self._embedder

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r}, version={self.version}, precision={self.precision!r})"


def check_folder(folder: Path, device: str, threads: int) -> ModelMetadata:
    """Check the model of a folder before it is loaded; returns its metadata. Raises DataError, ParamsError."""
    from raypath.components.models.base_models import check_inside
    from raypath.components.models.metadata import read_metadata
    from raypath.components.tasks.catalog import check_task

    check_device(device, threads)
    metadata = read_metadata(folder)
    check_task(metadata)
    check_inside(folder)
    return metadata


def check_device(device: str, threads: int) -> None:
    """Raise ParamsError for an unknown device, one that is not here, or a wrong number of threads."""
    if device not in DEVICES:
        raise ParamsError(f"device={device!r} is unknown", fix=f"use one of {', '.join(DEVICES)}")
    if not isinstance(threads, int) or threads < 0:
        raise ParamsError(f"threads={threads!r}; wanted an integer of at least 0", fix="0 leaves torch's own number")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ParamsError("device='cuda', and PyTorch finds no GPU here", fix="use device='auto' or 'cpu'")


def _chunks(given: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(given), CHUNK):
        yield given[start : start + CHUNK]
