"""Text generation: supervised fine-tuning of a decoder on conversations, by cross entropy over the responses' tokens.

Rows have `input_ids` and `loss_mask`, which marks the tokens in the loss. Batches are packed without padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.columns import inputs_of
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.models.adapters import adapter_base, is_adapter
from raypath.components.models.base_models import build_model
from raypath.components.models.decoder.packed_batch import IGNORED, rows_of_learned, token_weights
from raypath.components.models.language_models import CAUSAL, is_encoder_decoder, load_vocabulary, model_type
from raypath.components.tasks.base import Task
from raypath.components.tasks.language_model import token_metrics
from raypath.components.tasks.schemas import NotServed

NOT_SERVED = NotServed(
    "a causal language model predicts no labels",
    fix="send POST /v1/chat/completions to its endpoint, or use raypath.load(...).chat or `raypath predict`",
)


class TextGeneration(Task):
    """Cross entropy over tokens in the loss. A batch is packed, see models/decoder/packed_batch.py."""

    name = "text_generation"
    auto = CAUSAL
    kinds = frozenset(LabelKind)
    metric = "loss"
    lower_is_better = frozenset({"perplexity", "loss"})
    packed = True
    generates_text = True
    adapters_alone = True
    request = cast(Any, NOT_SERVED)
    response = cast(Any, NOT_SERVED)

    @classmethod
    def check_base(cls, base: str, folder: Path) -> None:
        """Raise DataError for an encoder-decoder."""
        if is_encoder_decoder(folder):
            what = f"base model {base} is an encoder-decoder ({model_type(folder)}); wanted a decoder"
            raise DataError(what, fix="use the workflow text_to_text, or a base such as a Llama or a Qwen")

    def _check(self) -> None:
        super()._check()
        if self.name != TextGeneration.name:
            return
        kinds = {column.kind for column in inputs_of(self.metadata.columns)}
        if "preference" in kinds:
            what = f"task {self.name} takes conversations; the rows are pairs of a chosen and a rejected response"
            fix = (
                "use the workflow preference, or train on the chosen ones: -s read.conversations=prompt -s read.inputs="
            )
            raise DataError(what, fix=f"{fix}prompt,chosen")
        if self.metadata.label_kind is LabelKind.BOOL:
            what = f"task {self.name} would learn the responses that are labelled false, too"
            raise DataError(what, fix="set -s read.label=none, or use the workflow preference with objective kto")

    @property
    def outputs(self) -> int:
        """Numbers per row: negative log-likelihood in nats, tokens in the loss, tokens predicted correctly."""
        return 3

    def build(self, folder: str, dropout: float | None) -> Any:
        """Build the decoder in `folder`, or the base of adapters there. Raises DataError for another kind of model."""
        folder = str(adapter_base(Path(folder))) if is_adapter(Path(folder)) else folder
        self.check_base(folder, Path(folder))
        if load_vocabulary(Path(folder)).auto != CAUSAL:
            what = f"base model {folder} predicts hidden tokens; wanted a decoder, which predicts the next one"
            raise DataError(what, fix="give another base, such as a Llama or a Qwen")
        model = build_model(self.auto, folder, (), dropout)
        model.config.num_labels = 2  # transformers' own number; with none, what is saved would not open quietly
        return model

    def module(self, model: Any, device: Any = None) -> Any:
        """Return a PackedDecoder around the model. device: that it will be on; None for the one it is on."""
        from raypath.components.models.decoder.packed_decoder import PackedDecoder

        return PackedDecoder(model, device)

    def forward(self, model: Any, batch: Batch) -> Any:
        """Compute the summed loss while gradients are recorded; else (log-probabilities, correct) by token."""
        import torch

        return model(batch, weights=token_weights(batch), scores=not torch.is_grad_enabled())

    def weight(self, batch: Batch) -> float:
        """Number of tokens in the loss, or the sum of their rows' weights."""
        weights = token_weights(batch)
        return float((batch["labels"] != IGNORED).sum() if weights is None else weights.sum())

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Return the loss that `forward` computed: cross entropy summed over the tokens in the loss."""
        return outputs

    def record(self, outputs: Any, batch: Batch) -> Any:
        """Sum `outputs` over each row, [B, 3]."""
        import torch

        log_p, right = outputs
        sums = torch.stack([-log_p, torch.ones_like(log_p), right.to(log_p.dtype)], dim=1)  # [n, 3]
        rows = rows_of_learned(batch)
        return sums.new_zeros(len(batch["row_starts"]) - 1, 3).index_add_(0, rows, sums)

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Compute `loss` in nats per token in the loss, `perplexity` = exp(loss), and `accuracy` of next tokens."""
        return token_metrics(decoded)
