"""Generation by openvino-genai: continuous batching with paged attention, a prefix cache and JSON schemas, on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.batching.all_prompts import SteppedEngine
from raypath.components.inference.generation.engine import Finish, SamplingSettings, no_adapters
from raypath.components.inference.generation.openvino_genai.grammars import GrammarCheck
from raypath.components.inference.generation.openvino_genai.pipeline import (
    BLOCK,
    Precision,
    import_genai,
    open_pipeline,
)
from raypath.components.inference.generation.openvino_genai.prefix_blocks import PrefixBlocks
from raypath.components.inference.generation.openvino_genai.requests import as_tensor, request_config, scoring_config
from raypath.components.inference.generation.streaming_engine import EngineStatistics, Piece


@dataclass
class _Request:
    """Request in the pipeline. stop: ids that end it."""

    request_id: str
    handle: Any
    prompt: Sequence[int]
    stop: frozenset[int]
    cached: int
    logprobs: bool = True
    ids: list[int] = field(default_factory=list)


class OpenVinoGenaiEngine(SteppedEngine):
    """Engine of a decoder of Llama's kind on a CPU.

    Log-probabilities are those of the distribution that tokens are drawn from, after temperature and penalties.

    Args:
        model: of transformers; it is compiled, and not used afterwards.
        precision: fp32, bf16, or int8 for matrices in 8 bits.
        threads: of the matmuls; 0 takes all cores.
        cache_tokens: of keys and values; 0 takes what the free memory allows.
        serving: JSON schemas, if OpenVINO converts the tokenizer, and the prefix cache; without, `likelihood`.

    Raises DataError for a model that does not compile.
    """

    name = "openvino-genai"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        precision: Precision = "bf16",
        threads: int = 0,
        cache_tokens: int = 0,
        serving: bool = True,
    ) -> None:
        from raypath.components.inference.generation.transformers_engine import stop_tokens

        self._genai = import_genai()
        self.tokenizer, self.precision, self._serving = tokenizer, precision, serving
        self._stop = stop_tokens(model, tokenizer)
        self._vocabulary = int(model.config.vocab_size)
        opened = open_pipeline(model, tokenizer if serving else None, precision, threads, cache_tokens, serving)
        self._grammars = GrammarCheck(tokenizer, self._vocabulary) if serving else None
        self._pipeline: Any = opened.pipeline
        longest = int(getattr(model.config, "max_position_embeddings", 0) or 2**31)
        self.context = min(longest, opened.tokens)
        self._blocks = PrefixBlocks(opened.tokens // BLOCK)
        self._requests: dict[str, _Request] = {}
        self._begun: dict[str, tuple[int, int]] = {}
        """Tokens, and cached ones, of prompts that were read in this step."""
        self._number = 0
        self._statistics = EngineStatistics(cache_tokens=opened.tokens)

    @classmethod
    def open(
        cls, folder: Path, precision: Precision = "bf16", threads: int = 0, serving: bool = True
    ) -> OpenVinoGenaiEngine:
        """Load the model of a folder, or of adapters merged with their base. Raises DataError, also for a model that
        has no graph here."""
        import torch
        import transformers

        from raypath.components.inference.generation.openvino_genai.decoder_graph import unsupported_reason
        from raypath.components.inference.generation.transformers_engine import load_decoder
        from raypath.components.models.adapters import is_adapter, open_model

        transformers.utils.logging.disable_progress_bar()
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": "auto"}[precision]
        model = open_model(folder) if is_adapter(folder) else load_decoder(folder, dtype)
        if why := unsupported_reason(model.config):
            raise DataError(f"the engine {cls.name} is {why}", fix="use the engine transformers")
        model = model.to(torch.bfloat16) if precision == "bf16" else model
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return cls(model, tokenizer, precision, threads, serving=serving)

    def likelihood(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the log-probability of each token of each row after the first, by the model.

        The engine is one that was opened without `serving`: of cached tokens nothing is computed.
        """
        assert not self._serving
        handles = []
        for row in rows:
            self._number += 1
            handles.append(self._pipeline.add_request(self._number, as_tensor(row), scoring_config(self._genai)))
        while self.has_work():
            self._pipeline.step()
        return [each.read_all()[0].generated_log_probs[1:] for each in handles]

    def has_work(self) -> bool:
        """Return True while a request is in flight, or was aborted and is still to be dropped."""
        return bool(self._pipeline.has_non_finished_requests())

    def step(self) -> list[Piece]:
        """Run the model once; see `StreamingEngine`. Raises RuntimeError where the pipeline failed."""
        self._pipeline.step()
        found = [piece for each in list(self._requests.values()) if (piece := self._piece(each)) is not None]
        self._count(found)
        return found

    def abort(self, request_id: str) -> None:
        """Drop a request; its slot is free at the next step."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            request.handle.cancel()

    def load_adapter(self, name: str, folder: Path) -> None:
        """Raise DataError: this engine serves one model, into which adapters are merged."""
        raise no_adapters(self.name, name)

    def drop_adapter(self, name: str) -> None:
        """Raise DataError, as `load_adapter`."""
        raise no_adapters(self.name, name)

    def statistics(self) -> EngineStatistics:
        """Return load and counts."""
        waiting = sum(not each.ids for each in list(self._requests.values()))
        return replace(self._statistics, waiting=waiting, running=len(self._requests) - waiting)

    def close(self) -> None:
        """Drop all requests, and the model."""
        for request_id in list(self._requests):
            self.abort(request_id)
        if self._pipeline is not None and self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        self._pipeline = None

    def _add(self, request_id: str, prompt: Sequence[int], settings: SamplingSettings, repeat: int) -> None:
        if settings.adapter:
            raise no_adapters(self.name, settings.adapter)
        if settings.grammar:
            if self._grammars is None:
                raise DataError("this engine was opened without JSON schemas")
            self._grammars.check(settings.grammar)
        stop = settings.stop if settings.ignore_stop and not settings.grammar else self._stop | settings.stop
        limit = min(settings.max_new_tokens, self.context - len(prompt))
        config = request_config(self._genai, prompt, settings, stop, limit, repeat)
        self._number += 1
        try:
            handle = self._pipeline.add_request(self._number, as_tensor(prompt), config)
        except RuntimeError as error:
            raise DataError(f"the engine {self.name} does not take the request: {_last_line(error)}") from None
        cached = self._blocks.count(prompt)
        self._requests[request_id] = _Request(request_id, handle, prompt, stop, cached, settings.logprobs)

    def _piece(self, request: _Request) -> Piece | None:
        """Return what a request has that was not read; None if it has nothing."""
        if not request.handle.can_read():
            if request.handle.get_status() != self._genai.GenerationStatus.IGNORED:
                return None
            del self._requests[request.request_id]
            failure = DataError("the request does not fit in the memory for keys and values", fix="shorten it")
            return Piece(request.request_id, error=failure)
        piece, reasons = Piece(request.request_id, cached=request.cached), self._genai.GenerationFinishReason
        for output in request.handle.read().values():
            piece.ids += output.generated_ids
            if request.logprobs:
                piece.logprobs += output.generated_log_probs
            if output.finish_reason != reasons.NONE:
                piece.finish = Finish.LENGTH if output.finish_reason == reasons.LENGTH else Finish.STOP
        if not request.ids:
            self._begun[request.request_id] = len(request.prompt), request.cached
            self._blocks.add(request.prompt)
        request.ids += piece.ids
        if piece.finish is not None:
            del self._requests[request.request_id]
            self._blocks.add([*request.prompt, *request.ids])
            if piece.ids and piece.ids[-1] in request.stop:
                piece.finish = Finish.STOP
                del piece.ids[-1], piece.logprobs[len(piece.ids) :]
        return piece

    def _count(self, pieces: Sequence[Piece]) -> None:
        """Add the pieces of a step to the statistics."""
        old, began = self._statistics, [self._begun.pop(each.request_id, (0, 0)) for each in pieces]
        self._statistics = replace(
            old,
            prompt_tokens=old.prompt_tokens + sum(tokens for tokens, _ in began),
            cached_tokens=old.cached_tokens + sum(cached for _, cached in began),
            generated_tokens=old.generated_tokens + sum(len(each.ids) for each in pieces),
            cache_use=self._pipeline.get_metrics().cache_usage / 100,
        )


def _last_line(error: RuntimeError) -> str:
    return (str(error).strip().splitlines() or ["no reason"])[-1]
