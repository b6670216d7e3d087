"""Generation with encoder-decoders by transformers: static batches of sources of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import Finish, Generated, Progress, SamplingSettings
from raypath.components.inference.generation.transformers_engine import open_with_tokenizer, precision_of, stop_tokens

MOST_ROWS = {"cpu": 32, "cuda": 128}
"""Most rows of a batch."""
MOST_TOKENS = {"cpu": 8_192, "cuda": 131_072}
"""Most tokens of the sources of a batch, with padding."""


class Seq2SeqEngine:
    """Engine of an encoder-decoder of transformers. model: on its device, in its precision, for inference."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self._stop = stop_tokens(model, tokenizer)
        self._context = int(getattr(model.config, "max_position_embeddings", 0) or 2**31)
        self._vocabulary = int(model.config.vocab_size)

    @property
    def precision(self) -> str:
        """Precision of the matmuls: fp32 or bf16."""
        return precision_of(self.model)

    @classmethod
    def open(cls, folder: Path, precision: str = "auto", device: str = "") -> Seq2SeqEngine:
        """Load the model of a folder, or of adapters with their base: bf16 where the machine has it, else float32.

        Args:
            precision: auto, bf16 or fp32.
            device: cpu or cuda; "" takes the GPU if there is one.

        Raises DataError for a folder that is no encoder-decoder.
        """
        return cls(*open_with_tokenizer(folder, precision, device))

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[Generated]:
        """Return a target for each source, in the same order, as transformers' `generate` writes it.

        A target ends where the decoder's context does. Sampling is repeatable for the same list of sources. Raises
        DataError for a source that is empty or too long, or ids that are not in the vocabulary.
        """
        import torch

        self._check(prompts)
        found: list[Generated | None] = [None] * len(prompts)
        done = 0
        with torch.inference_mode(), torch.random.fork_rng(enabled=settings.temperature > 0):
            torch.manual_seed(settings.seed)
            for rows in self._batches(prompts):
                for row, ids in zip(rows, self._written([prompts[row] for row in rows], settings), strict=True):
                    found[row] = self._result(ids, settings)
                done += len(rows)
                if progress is not None:
                    progress(done, len(prompts))
        return [each for each in found if each is not None]

    def _written(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> list[list[int]]:
        """Return the ids behind the start token of each target of a batch, with padding and end token."""
        import torch

        width = max(map(len, prompts))
        ids = torch.zeros((len(prompts), width), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
        chosen: dict[str, Any] = {"do_sample": settings.temperature > 0}
        if chosen["do_sample"]:
            chosen |= {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k}
            chosen |= {"min_p": settings.min_p} if settings.min_p else {}
        if settings.repetition_penalty != 1:
            chosen["repetition_penalty"] = settings.repetition_penalty
        device = self.model.device
        made = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=min(settings.max_new_tokens, self._context - 1),
            eos_token_id=sorted(self._stop | settings.stop),
            num_beams=1,
            **chosen,
        )
        return [row[1:] for row in made.tolist()]

    def _result(self, ids: list[int], settings: SamplingSettings) -> Generated:
        stop = self._stop | settings.stop
        end = next((n for n, token in enumerate(ids) if token in stop), None)
        kept = ids if end is None else ids[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Generated(kept, text, Finish.LENGTH if end is None else Finish.STOP, [])

    def _batches(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield the rows of each batch, the longest sources first: too little memory shows at once."""
        device = self.model.device.type
        batch: list[int] = []
        for row in sorted(range(len(prompts)), key=lambda row: -len(prompts[row])):
            tokens = (len(batch) + 1) * len(prompts[batch[0] if batch else row])
            if batch and (len(batch) >= MOST_ROWS[device] or tokens > MOST_TOKENS[device]):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        for row, prompt in enumerate(prompts):
            if not len(prompt):
                raise DataError(f"source {row} is empty; wanted at least one token")
            if len(prompt) > self._context:
                what = f"source {row} has {len(prompt):,} tokens, and the model takes {self._context:,}"
                raise DataError(what, fix="shorten it, or take a base with a longer context")
            if not 0 <= min(prompt) <= max(prompt) < self._vocabulary:
                what = f"source {row} has a token id outside of the model's vocabulary of {self._vocabulary:,}"
                raise DataError(what, fix="use the tokenizer of the model's folder")
