"""Language model task for pre-training on unlabelled text, masked or causal as the base model is.

A masked model predicts hidden tokens, a causal one each next token. Labels are not used. The task serves no requests;
fine-tuning starts from its model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.models.base_models import build_model
from raypath.components.models.decoder.packed_batch import IGNORED
from raypath.components.models.language_models import MASKED, Vocabulary, load_vocabulary
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.schemas import NotServed

NOT_SERVED = NotServed(
    "a language model cannot be evaluated, registered or served",
    fix="fine-tune from it first: finetune(..., start=model)",
)


class LanguageModel(Task):
    """Cross entropy over the tokens to predict. A batch has `labels` int64 [B, L], see `inputs`."""

    name = "language_model"
    kinds = frozenset(LabelKind)
    metric = "perplexity"
    lower_is_better = frozenset({"perplexity", "loss"})
    objectives = frozenset({"mask"})
    auto = MASKED
    request = cast(Any, NOT_SERVED)
    response = cast(Any, NOT_SERVED)

    def __init__(self, metadata: ModelMetadata, objective: ObjectiveParams | None = None) -> None:
        super().__init__(metadata, objective)
        self._vocabulary: Vocabulary | None = None
        self._selector: TokenSelector | None = None

    @property
    def outputs(self) -> int:
        """Numbers per row: negative log likelihood in nats, tokens to predict, tokens predicted correctly."""
        return 3

    def build(self, folder: str, dropout: float | None) -> Any:
        """Build the language model of the base in `folder`; reads its tokenizer too. Raises DataError."""
        self._vocabulary = load_vocabulary(Path(folder))
        model = build_model(self._vocabulary.auto, folder, (), dropout)
        model.config.num_labels = 2  # transformers' own number; with none, what is saved would not open quietly
        self._selector = TokenSelector(model)
        return model

    def inputs(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the batch with `labels`: the token to predict at each position, else IGNORED. Call `build` first."""
        import torch

        if self._vocabulary is None:
            raise NOT_SERVED.error()
        ids, real = batch["input_ids"].numpy(), batch["attention_mask"].numpy() > 0  # [B, L]
        if self._vocabulary.mask < 0:
            labels = np.full_like(ids, IGNORED)
            labels[:, :-1] = np.where(real[:, 1:], ids[:, 1:], IGNORED)
        else:
            able = real & ~np.isin(ids, self._vocabulary.special)
            ids, labels = mask(ids, able, self.objective.mask, self._vocabulary, rng)
        return {**batch, "input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}

    def forward(self, model: Any, batch: Batch) -> Any:
        """Compute logits [n, V] of the n tokens to predict only: those of all tokens would dominate memory.

        Raises ParamsError for a model that was opened for inference, not built for training.
        """
        if self._selector is None:
            raise NOT_SERVED.error()
        return self._selector.logits(model, batch)

    def weight(self, batch: Batch) -> float:
        """Number of tokens to predict."""
        return float((batch["labels"] != IGNORED).sum())

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Cross entropy summed over the tokens to predict. outputs float [n, V]."""
        return self._each(outputs, batch).sum()

    def record(self, outputs: Any, batch: Batch) -> Any:
        """Sum `outputs` over each row, [B, 3]."""
        import torch

        chosen = batch["labels"] != IGNORED
        right = outputs.argmax(dim=1) == batch["labels"][chosen]
        lost = self._each(outputs, batch)
        sums = torch.stack([lost, torch.ones_like(lost), right.to(lost.dtype)], dim=1)  # [n, 3]
        rows = chosen.nonzero()[:, 0]
        return sums.new_zeros(len(chosen), 3).index_add_(0, rows, sums)

    def _each(self, outputs: Any, batch: Batch) -> Any:
        import torch

        labels = batch["labels"][batch["labels"] != IGNORED]
        return torch.nn.functional.cross_entropy(outputs.float(), labels, reduction="none")

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Compute `loss` in nats per token, `perplexity` = exp(loss), and `accuracy` over the tokens to predict.

        Perplexity as in Jelinek et al., Perplexity: a measure of the difficulty of speech recognition tasks, 1977. For
        a masked model it is over hidden tokens, and comparable only for the same share of them.
        """
        return token_metrics(decoded)


def token_metrics(sums: Array) -> dict[str, float]:
    """Compute metrics over tokens from sums by row [N, 3]: loss in nats, tokens, tokens predicted correctly."""
    lost, count, right = (float(total) for total in np.asarray(sums, np.float64).sum(axis=0))
    if not count:
        raise DataError("the validation split has no token to predict", fix="give longer texts")
    loss = lost / count
    return {"perplexity": math.exp(min(loss, 700.0)), "loss": loss, "accuracy": right / count}


def mask(
    ids: Array, able: Array, share: float, vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Mask tokens: return (ids, labels), both int64 [B, L]; `able` bool [B, L] may be selected.

    Each is selected with probability `share`, at least one per row; of those, 80% become the mask token, 10% a random
    one, 10% stay unchanged (Devlin et al., BERT, 2018, section 3.1 and appendix A.1).
    """
    draws = np.where(able, rng.random(ids.shape), 2.0)
    chosen = draws < share
    rows, lowest = np.arange(len(ids)), draws.argmin(axis=1)
    chosen[rows, lowest] = able[rows, lowest]
    fate = rng.random(ids.shape)
    strange = rng.integers(0, vocabulary.size, ids.shape)
    shown = np.where(fate < 0.8, vocabulary.mask, np.where(fate < 0.9, strange, ids))
    return np.where(chosen, shown, ids), np.where(chosen, ids, IGNORED)


class TokenSelector:
    """Pass only the hidden states of selected tokens to a model's head, by a hook on the encoder.

    The full model is called, so that it may be sharded over processes. A model whose head needs the whole row is
    detected on a few tokens, and gets all of it.
    """

    def __init__(self, model: Any) -> None:
        self._chosen: Any = None
        self._hook = model.base_model.register_forward_hook(self._select) if model.base_model is not model else None
        if self._hook is not None and not self._agrees(model):
            self._hook.remove()
            self._hook = None

    def logits(self, model: Any, batch: Batch) -> Any:
        """Compute logits [n, V] of the tokens that `batch` has a label for."""
        chosen = batch["labels"] != IGNORED
        self._chosen = chosen if self._hook is not None else None
        try:
            found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        finally:
            self._chosen = None
        return found[chosen] if self._hook is None else found[0]

    def _select(self, encoder: Any, given: Any, made: Any) -> Any:
        if self._chosen is not None:
            # Heads expect three dimensions: [B, L, H] becomes one row [1, n, H].
            made.last_hidden_state = made.last_hidden_state[self._chosen][None]
        return made

    def _agrees(self, model: Any) -> bool:
        """Compare the logits with and without the hook."""
        import torch

        ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]]) % model.config.vocab_size
        labels = torch.tensor([[0, IGNORED, 0, IGNORED], [IGNORED, 0, 0, IGNORED]])
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        with torch.no_grad():
            full = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits
            try:
                some = self.logits(model, batch)
            except (RuntimeError, ValueError, IndexError, AttributeError, TypeError):
                return False
        wanted = full[labels != IGNORED]
        return some.shape == wanted.shape and bool(torch.allclose(some, wanted, atol=1e-4, rtol=1e-4))
