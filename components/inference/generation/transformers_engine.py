"""Generation by transformers: batches of prompts of similar length, or requests that join a running batch.

Batches are bounded by the memory that their keys and values may take. In float32 an answer does not depend on the rows
beside it, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.batching.row_scheduler import RowScheduler
from raypath.components.inference.generation.engine import (
    Finish,
    Generated,
    Progress,
    SamplingSettings,
    check_prompts,
)
from raypath.components.inference.generation.streaming_engine import EngineStatistics, Piece
from raypath.components.models.bf16 import supports_bf16
from raypath.components.models.process import MODELS, bound_kernel_caches, free_memory, import_large

if TYPE_CHECKING:
    from raypath.components.inference.generation.batching.decoding import Answer
    from raypath.components.inference.generation.batching.grammars import Grammars
    from raypath.components.inference.generation.batching.row_adapters import RowAdapters

MOST_ROWS = {"cpu": 32, "cuda": 256}
"""Most rows of a batch."""
MEMORY_SHARE = 0.25
"""Share of the free memory that keys and values of a batch may take."""


class TransformersEngine:
    """Engine of a causal language model of transformers. model: on its device, in its precision, for inference."""

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any, stop: frozenset[int] = frozenset()) -> None:
        """Args: stop: ids of tokens that end an answer, besides those of the model's configuration."""
        self.model, self.tokenizer = model.eval(), tokenizer
        self._stop = stop | stop_tokens(model, tokenizer)
        config = model.config.get_text_config(decoder=True)
        self.context = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        self._vocabulary = int(config.vocab_size)
        self._scheduler: RowScheduler | None = None

    @property
    def precision(self) -> str:
        """Precision of the matmuls: fp32 or bf16."""
        return precision_of(self.model)

    @classmethod
    def open(cls, folder: Path, precision: str = "auto", device: str = "") -> TransformersEngine:
        """Load the model of a folder, or of adapters with their base: bf16 where the machine has it, else float32.

        Args:
            precision: auto, bf16 or fp32.
            device: cpu or cuda; "" takes the GPU if there is one.

        Raises DataError for a folder that is no causal language model.
        """
        return cls(*open_with_tokenizer(folder, precision, device, load_decoder))

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[Generated]:
        """Return an answer to each prompt, in the same order.

        An answer ends where the model's context does. Raises DataError for a prompt that is empty, or has no room left
        for an answer, or ids that are not in the vocabulary.
        """
        import torch

        from raypath.components.inference.generation.batching.decoding import Forward, decode

        answers = self._answers(prompts, settings)
        forward = Forward(self.model, self._adapters)
        found: list[Generated | None] = [None] * len(prompts)
        queue = list(self._batches(prompts, [each.limit for each in answers]))[::-1]
        done = 0
        while queue:
            rows = queue.pop()
            try:
                with torch.inference_mode():
                    decode(forward, chosen := [answers[row].again() for row in rows])
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                torch.cuda.empty_cache()
                queue += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                continue
            for row, answer in zip(rows, chosen, strict=True):
                if answer.error is not None:
                    raise answer.error
                text = self.tokenizer.decode(answer.ids, skip_special_tokens=True)
                found[row] = Generated(answer.ids, text, answer.finish or Finish.LENGTH, answer.logprobs)
            done += len(rows)
            if progress is not None:
                progress(done, len(prompts))
        return [each for each in found if each is not None]

    def add(self, request_id: str, prompt: Sequence[int], settings: SamplingSettings) -> None:
        """Queue a request; see `StreamingEngine`. Raises DataError as `generate`, for an adapter that is not loaded,
        and for a JSON schema without a grammar."""
        [answer] = self._answers([prompt], settings)
        answer.request_id = request_id
        self._rows.add(answer)

    def has_work(self) -> bool:
        """Return True while a request is in flight."""
        return self._scheduler is not None and self._scheduler.has_work()

    def step(self) -> list[Piece]:
        """Add a token to each running row; see `StreamingEngine`."""
        return self._rows.step()

    def abort(self, request_id: str) -> None:
        """Drop a request; its slot is free at the next step."""
        self._rows.abort(request_id)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter beside the others; see `StreamingEngine`. Raises DataError for one that does not fit."""
        self._adapters.load(name, folder)

    def drop_adapter(self, name: str) -> None:
        """Unload an adapter. Raises DataError for one that is not loaded, or that requests in flight use."""
        used = 0 if self._scheduler is None else self._scheduler.users(name)
        if used:
            raise DataError(f"adapter {name} is used by {used} requests in flight", fix="end them first")
        self._adapters.drop(name)

    def statistics(self) -> EngineStatistics:
        """Return load and counts."""
        return EngineStatistics() if self._scheduler is None else self._scheduler.statistics()

    def close(self) -> None:
        """Drop all requests, and the model."""
        self._scheduler = self.model = None
        self.__dict__.pop("_adapters", None)

    @cached_property
    def _grammars(self) -> Grammars:
        from raypath.components.inference.generation.batching.grammars import Grammars

        return Grammars(self.tokenizer, self._vocabulary)

    @cached_property
    def _adapters(self) -> RowAdapters:
        from raypath.components.inference.generation.batching.row_adapters import RowAdapters

        return RowAdapters(self.model)

    @property
    def _rows(self) -> RowScheduler:
        if self._scheduler is None:
            from raypath.components.inference.generation.batching.decoding import Forward

            most = MOST_ROWS[self.model.device.type]
            self._scheduler = RowScheduler(Forward(self.model, self._adapters), most, self._budget)
        return self._scheduler

    def _answers(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> list[Answer]:
        """Check prompts and settings, and make a request of each."""
        from raypath.components.inference.generation.batching.decoding import Answer
        from raypath.components.inference.generation.batching.sampling import count_repeats

        if settings.adapter:
            self._adapters.check(settings.adapter)
        check_prompts(prompts, self.context, self._vocabulary)
        stop = settings.stop if settings.ignore_stop and not settings.grammar else self._stop | settings.stop
        return [
            Answer(
                prompt,
                settings,
                min(settings.max_new_tokens, self.context - len(prompt)),
                stop,
                repeat,
                self._grammars.start(settings.grammar) if settings.grammar else None,
            )
            for prompt, repeat in zip(prompts, count_repeats(prompts), strict=True)
        ]

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

        from raypath.components.inference.generation.batching.kv_cache import bytes_per_token

        device = self.model.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        return MEMORY_SHARE * free / bytes_per_token(self.model.config, self.model.dtype.itemsize)


def precision_of(model: Any) -> str:
    """Return the precision of a model's matmuls: fp32 or bf16."""
    return "bf16" if "bfloat16" in str(model.dtype) else "fp32"


def open_with_tokenizer(
    folder: Path, precision: str, device: str, load: Callable[[Path, Any], Any] | None = None
) -> tuple[Any, Any]:
    """Open the model of a folder, or of adapters with their base, and its tokenizer.

    Args:
        precision, device: as for `TransformersEngine.open`.
        load: opens a complete model in a dtype; by default it is opened in float32 and converted.
    """
    import_large(*MODELS)
    import torch
    import transformers

    from raypath.components.models.adapters import is_adapter, open_model

    transformers.utils.logging.disable_progress_bar()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = precision == "bf16" or (precision == "auto" and supports_bf16(device))
    if bf16 and device == "cpu":
        bound_kernel_caches()
    dtype = torch.bfloat16 if bf16 else torch.float32
    # Adapters are merged in float32, as for every other use.
    model = open_model(folder).to(dtype) if load is None or is_adapter(folder) else load(folder, dtype)
    return model.to(device), transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_decoder(folder: Path, dtype: Any) -> Any:
    """Open the causal language model of a folder on the CPU. Raises DataError."""
    import_large(*MODELS)
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
    return stop_ids(model.generation_config, model.config, tokenizer)


def stop_ids(*sources: Any) -> frozenset[int]:
    """Return the ids of end of sequence that configurations and tokenizers name."""
    given = [getattr(source, "eos_token_id", None) for source in sources]
    return frozenset(
        int(token) for each in given if each is not None for token in (each if isinstance(each, list) else [each])
    )
