"""Generation by transformers: static batches of prompts of similar length, with a key-value cache.

Batches are bounded by the memory that their keys and values may take. In float32 an answer does not depend on the rows
beside it, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import Finish, Generated, Progress, SamplingSettings
from raypath.components.models.bf16 import supports_bf16
from raypath.components.models.process import free_memory

MOST_ROWS = {"cpu": 32, "cuda": 256}
"""Most rows of a batch."""
MEMORY_SHARE = 0.25
"""Share of the free memory that keys and values of a batch may take."""


class TransformersEngine:
    """Engine of a causal language model of transformers. model: on its device, in its precision, for inference."""

    def __init__(self, model: Any, tokenizer: Any, stop: frozenset[int] = frozenset()) -> None:
        """Args: stop: ids of tokens that end an answer, besides those of the model's configuration."""
        self.model, self.tokenizer = model.eval(), tokenizer
        self._stop = stop | stop_tokens(model, tokenizer)
        config = model.config.get_text_config(decoder=True)
        self._context = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        self._vocabulary = int(config.vocab_size)

    @classmethod
    def open(cls, folder: Path, precision: str = "auto", device: str = "") -> TransformersEngine:
        """Load the model of a folder, or of adapters with their base: bf16 where the machine has it, else float32.

        Args:
            precision: auto, bf16 or fp32.
            device: cpu or cuda; "" takes the GPU if there is one.

        Raises DataError for a folder that is no causal language model.
        """
        import torch
        import transformers

        from raypath.components.models.adapters import is_adapter, open_model

        transformers.utils.logging.disable_progress_bar()
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        bf16 = precision == "bf16" or (precision == "auto" and supports_bf16(device))
        dtype = torch.bfloat16 if bf16 else torch.float32
        # Adapters are merged in float32, as for every other use.
        model = open_model(folder).to(dtype) if is_adapter(folder) else load_decoder(folder, dtype)
        return cls(model.to(device), transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False))

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[Generated]:
        """Return an answer to each prompt, in the same order.

        An answer ends where the model's context does. Raises DataError for a prompt that is empty, or has no room left
        for an answer, or ids that are not in the vocabulary.
        """
        import torch

        from raypath.components.inference.generation.decoding import Forward, decode
        from raypath.components.inference.generation.sampling import count_repeats

        self._check(prompts)
        forward, repeats = Forward(self.model), count_repeats(prompts)
        limits = [min(settings.max_new_tokens, self._context - len(prompt)) for prompt in prompts]
        stop = self._stop | settings.stop
        found: list[Generated | None] = [None] * len(prompts)
        queue = list(self._batches(prompts, limits))[::-1]
        done = 0
        while queue:
            rows = queue.pop()
            asked, before, most = ([prompts[n] for n in rows], [repeats[n] for n in rows], [limits[n] for n in rows])
            try:
                with torch.inference_mode():
                    answers = decode(forward, asked, before, most, settings, stop)
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                torch.cuda.empty_cache()
                queue += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                continue
            for row, answer in zip(rows, answers, strict=True):
                text = self.tokenizer.decode(answer.ids, skip_special_tokens=True)
                found[row] = Generated(answer.ids, text, answer.finish or Finish.LENGTH, answer.logprobs)
            done += len(rows)
            if progress is not None:
                progress(done, len(prompts))
        return [each for each in found if each is not None]

    def _batches(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> Iterator[list[int]]:
        """Yield the rows of each batch, the longest prompts first: too little memory shows at once."""
        budget, most = self._budget(), MOST_ROWS[self.model.device.type]
        batch: list[int] = []
        width = 0
        for row in sorted(range(len(prompts)), key=lambda row: -len(prompts[row])):
            wide = max(width, len(prompts[row]) + limits[row])
            if batch and (len(batch) >= most or wide * (len(batch) + 1) > budget):
                yield batch
                batch, wide = [], len(prompts[row]) + limits[row]
            batch.append(row)
            width = wide
        if batch:
            yield batch

    def _budget(self) -> float:
        """Return the most tokens whose keys and values fit, those of all rows of a batch together."""
        import torch

        from raypath.components.inference.generation.kv_cache import bytes_per_token

        device = self.model.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        return MEMORY_SHARE * free / bytes_per_token(self.model.config, self.model.dtype.itemsize)

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        for row, prompt in enumerate(prompts):
            if not len(prompt):
                raise DataError(f"prompt {row} is empty; wanted at least one token")
            if len(prompt) >= self._context:
                what = f"prompt {row} has {len(prompt):,} tokens, and the model takes {self._context:,} with the answer"
                raise DataError(what, fix="shorten it, or take a base with a longer context")
            if not 0 <= min(prompt) <= max(prompt) < self._vocabulary:
                what = f"prompt {row} has a token id outside of the model's vocabulary of {self._vocabulary:,}"
                raise DataError(what, fix="use the tokenizer of the model's folder")


def load_decoder(folder: Path, dtype: Any) -> Any:
    """Open the causal language model of a folder on the CPU. Raises DataError."""
    import transformers
    from safetensors import SafetensorError

    from raypath.components.models.attention import attention_of

    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        attention = attention_of("AutoModelForCausalLM", config)
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"model {folder} does not open as a language model ({reason})"
        raise DataError(what, fix="give a decoder with *.safetensors") from None


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer, by the generation config, the config and the tokenizer."""
    given = [getattr(source, "eos_token_id", None) for source in (model.generation_config, model.config, tokenizer)]
    return frozenset(
        int(token) for each in given if each is not None for token in (each if isinstance(each, list) else [each])
    )
