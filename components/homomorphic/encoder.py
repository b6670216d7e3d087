"""The client's side of a model: texts to features, with an encoder that the client has.

The encoder is a model folder of Raypath, whose own head is not used, or the base model of a version whose head was
fitted to its frozen features (`finetune.method=linear_probe`).
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.arrays import Array
from raypath.components.core.columns import is_single_text
from raypath.components.core.errors import DataError
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.homomorphic.model_head import encoder_digest, head_name, unsupported_reason
from raypath.components.inference.engine import Engine
from raypath.components.models.base_models import TOKENIZER_COPY, base_folder, tokenizer_digest
from raypath.components.models.heads.pooling_layer import append_pooling, output_layer
from raypath.components.models.metadata import METADATA_FILE, ModelMetadata, write_metadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.texts import Inputs, as_rows, as_texts


class Encoder:
    """Encoder of a model, in float32.

    Args:
        base: Folder of a model, or of its base: a path, package://PACKAGE/PATH or hf://NAME[@REVISION].
        metadata: Of the version in service.
        encoder, tokenizer: Digests of the version's encoder (`encoder_digest`) and tokenizer.

    Raises DataError for a base that does not open, or that is not the encoder of the version.
    """

    def __init__(self, base: str, metadata: ModelMetadata, encoder: str, tokenizer: str) -> None:
        folder = base_folder(base)
        if tokenizer_digest(folder) != tokenizer:
            raise _another(base, "tokenizer")
        with tempfile.TemporaryDirectory(prefix="raypath-encoder-") as temporary:
            if not (folder / METADATA_FILE).is_file():
                folder = _with_pooling(folder, metadata, Path(temporary))
            if reason := unsupported_reason(folder):
                raise DataError(f"base {base} has no encoder for encrypted predictions: {reason}")
            if encoder_digest(folder) != encoder:
                raise _another(base, "encoder")
            plain = Engine(folder, precision="fp32", device="cpu")
            self._tokenizer = TextTokenizer(folder, metadata.max_length)
        self.task = load_task(metadata)
        layer = output_layer(plain.model)
        self._engine = copy.copy(plain)
        self._engine.task = _Features(plain.task, int(layer.in_features))  # type: ignore[assignment]
        _remove_output(plain.model)

    def render(self, inputs: Inputs) -> list[str]:
        """Return one text or row, or several, as the texts that the model reads. Raises DataError for what is none."""
        rows = as_rows(inputs)
        if is_single_text(self.task.metadata.columns) and rows is None:
            return self.task.redacted(as_texts(inputs))  # type: ignore[arg-type]
        if rows is None or is_single_text(self.task.metadata.columns):
            raise DataError("the input does not fit the model", fix="give texts, or rows for several input columns")
        return self.task.rows(rows)

    def features(self, texts: Sequence[str]) -> Array:
        """Return what the last layer would read of each text, float32 [N, width]."""
        return self._engine.record(self._tokenizer.encode(list(texts)))


class _Features:
    """Task of an engine without its last layer."""

    def __init__(self, task: Any, width: int) -> None:
        self._task, self.outputs = task, width

    def forward(self, model: Any, batch: dict[str, Any]) -> Any:
        return self._task.forward(model, batch)

    def record(self, outputs: Any, batch: dict[str, Any]) -> Any:
        return outputs


def write_encoder(folder: Path, out: Path) -> None:
    """Write the encoder of a model for clients: the folder with a last layer of zeros.

    folder: of the model; out: new or empty. Raises DataError for a model without a linear head.
    """
    from safetensors.torch import load_file, save_file

    if reason := unsupported_reason(folder):
        raise DataError(f"{folder} supports no encrypted predictions: {reason}", fix="give a classifier")
    head = head_name(folder)
    out.mkdir(parents=True, exist_ok=True)
    kept = [path for pattern in ("config.json", METADATA_FILE, *TOKENIZER_COPY) for path in folder.glob(pattern)]
    for path in {*kept, *folder.glob("model*.index.json")}:
        shutil.copy(path, out / path.name)
    for path in folder.glob("*.safetensors"):
        weights = {n: w * 0 if n.startswith(f"{head}.") else w for n, w in load_file(path).items()}
        save_file(weights, out / path.name, {"format": "pt"})


def _with_pooling(base: Path, metadata: ModelMetadata, out: Path) -> Path:
    """Build the classifier on a base that `linear_probe` builds, with a random head; return its folder."""
    model = load_task(metadata).build(str(base), None)
    append_pooling(model)
    model.save_pretrained(out)
    for path in {path for pattern in TOKENIZER_COPY for path in base.glob(pattern)}:
        shutil.copy(path, out / path.name)
    write_metadata(out, metadata)
    return out


def _remove_output(model: Any) -> None:
    import torch

    head = model.classifier
    if hasattr(head, "out_proj"):
        head.out_proj = torch.nn.Identity()
    else:
        model.classifier = torch.nn.Identity()


def _another(base: str, part: str) -> DataError:
    what = f"base {base} has another {part} than the version in service"
    fix = "give the base model that it was trained on (method=linear_probe), or the encoder that its operator exported"
    return DataError(what, fix=fix)
