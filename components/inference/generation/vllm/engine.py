"""Generation by vLLM, in the form of `StreamingEngine`.

`LLMEngine` is the part of vLLM that is stepped by its caller, as the protocol is: requests, steps, aborts and adapters
are its public methods, and its scheduler and model run in a process of their own, ahead of the caller. `AsyncLLM` is
the same with a loop of asyncio inside, beside that of `AsyncEngine`; the deployments of `ray.serve.llm` bring routes,
keys and swaps of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.batching.all_prompts import SteppedEngine
from raypath.components.inference.generation.engine import Finish, SamplingSettings, no_adapters
from raypath.components.inference.generation.streaming_engine import EngineStatistics, Piece
from raypath.components.inference.generation.vllm.opening import end_ids, open_llm_engine
from raypath.components.inference.generation.vllm.options import Precision, VllmOptions, import_vllm
from raypath.components.inference.generation.vllm.requests import sampling_params, scoring_params, top_tokens


@dataclass
class _Request:
    """Request in flight. prompt: its tokens; tokens: those and what came since; stop: ids that end it."""

    prompt: int
    stop: frozenset[int]
    top: int
    tokens: int
    begun: bool = False


class VllmEngine(SteppedEngine):
    """Engine of any causal language model that vLLM has.

    Args:
        engine: vLLM's LLMEngine.
        stop: ids of tokens that end an answer.
    """

    name = "vllm"

    def __init__(self, engine: Any, tokenizer: Any, precision: Precision, stop: frozenset[int], adapters: int) -> None:
        self._vllm = import_vllm()
        self._engine: Any = engine
        self.tokenizer, self.precision, self._stop = tokenizer, precision, stop
        config = engine.vllm_config
        self.context = int(config.model_config.max_model_len)
        self._vocabulary = int(config.model_config.get_vocab_size())
        self._slots = adapters
        self._adapters: dict[str, Any] = {}
        self._number = 0
        self._requests: dict[str, _Request] = {}
        tokens = int(config.cache_config.num_gpu_blocks or 0) * int(config.cache_config.block_size)
        self._statistics = EngineStatistics(cache_tokens=tokens)

    @classmethod
    def open(
        cls,
        folder: Path,
        precision: Precision = "bf16",
        device: str = "",
        options: VllmOptions | None = None,
        threads: int = 0,
    ) -> VllmEngine:
        """Load the model of a folder, or of adapters merged with their base. Raises DataError for a model that vLLM
        does not open, such as one that does not fit, ParamsError where vLLM is not installed.

        threads: of the matmuls on a CPU; 0 takes all cores.
        """
        import transformers

        options = options or VllmOptions()
        engine = open_llm_engine(folder, precision, device, options, threads)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return cls(engine, tokenizer, precision, end_ids(folder, tokenizer), options.adapters)

    def likelihood(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the log-probability of each token of each row after the first, by the model."""
        for number, row in enumerate(rows):
            self._engine.add_request(str(number), _tokens(row), scoring_params(self._vllm))
        found: dict[str, list[float]] = {}
        while self.has_work():
            for output in self._engine.step():
                scores = output.prompt_logprobs[1:]
                ids = output.prompt_token_ids[1:]
                found[output.request_id] = [float(each[token].logprob) for each, token in zip(scores, ids, strict=True)]
        return [found[str(number)] for number in range(len(rows))]

    def has_work(self) -> bool:
        """Return True while a request is in flight."""
        return bool(self._engine.has_unfinished_requests())

    def step(self) -> list[Piece]:
        """Return what vLLM generated since the last call, or wait for it; see `StreamingEngine`."""
        found = [piece for output in self._engine.step() if (piece := self._piece(output)) is not None]
        made = sum(len(each.ids) for each in found)
        self._statistics = replace(
            self._statistics, generated_tokens=self._statistics.generated_tokens + made, cache_use=self._cache_use()
        )
        return found

    def abort(self, request_id: str) -> None:
        """Drop a request; its slot is free at the next step."""
        if self._requests.pop(request_id, None) is not None:
            self._engine.abort_request([request_id])

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter; see `StreamingEngine`. Raises DataError for layers or a rank that vLLM does not take,
        and for an engine that was opened without adapters."""
        from vllm.lora.request import LoRARequest

        if not self._slots:
            raise no_adapters(self.name, name)
        if len(self._adapters.keys() - {name}) >= self._slots:
            what = f"adapter {name} is one too many: {self._slots} may be loaded at a time"
            raise DataError(what, fix="unload another one first")
        self._number += 1
        # Keys of the prefix cache have the adapter's name, which another one may have had before.
        request = LoRARequest(f"{name}-{self._number}", self._number, str(folder))
        try:
            loaded = self._engine.add_lora(request)
        except Exception as error:  # noqa: BLE001 - of many types, some from another process
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise DataError(f"vLLM does not load the adapter {name} ({reason[0]})", fix="serve it merged") from None
        if not loaded:
            raise DataError(f"vLLM does not load the adapter {name}", fix="serve it merged")
        self.drop_adapter(name)
        self._adapters[name] = request

    def drop_adapter(self, name: str) -> None:
        """Unload an adapter; requests that use it end before."""
        if (request := self._adapters.pop(name, None)) is not None:
            self._engine.remove_lora(request.lora_int_id)

    def statistics(self) -> EngineStatistics:
        """Return load and counts. The use of the cache is the share of the tokens in flight."""
        waiting = sum(not each.begun for each in list(self._requests.values()))
        return replace(self._statistics, waiting=waiting, running=max(len(self._requests) - waiting, 0))

    def close(self) -> None:
        """Drop all requests, and end vLLM's processes."""
        engine, self._engine = self._engine, None
        self._requests.clear()
        if engine is not None:
            engine.engine_core.shutdown()

    def _add(self, request_id: str, prompt: Sequence[int], settings: SamplingSettings, repeat: int) -> None:
        from vllm.exceptions import VLLMClientError

        if settings.adapter and settings.adapter not in self._adapters:
            raise DataError(f"adapter {settings.adapter} is not loaded", fix="load it first")
        stop = settings.stop if settings.ignore_stop and not settings.grammar else self._stop | settings.stop
        limit = min(settings.max_new_tokens, self.context - len(prompt))
        try:
            params = sampling_params(self._vllm, prompt, settings, stop, limit, repeat)
            self._engine.add_request(
                request_id, _tokens(prompt), params, lora_request=self._adapters.get(settings.adapter)
            )
        except (ValueError, VLLMClientError) as error:
            kind = "JSON schema" if settings.grammar else "request"
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise DataError(f"vLLM does not take the {kind} ({reason[0]})", fix="simplify it") from None
        self._requests[request_id] = _Request(len(prompt), stop, settings.top_logprobs, len(prompt))

    def _piece(self, output: Any) -> Piece | None:
        """Return what a request has got; None for one that was aborted."""
        request = self._requests.get(output.request_id)
        if request is None:
            return None
        piece, [made] = Piece(output.request_id, cached=output.num_cached_tokens or 0), output.outputs
        piece.ids = list(made.token_ids)
        for token, found in zip(piece.ids, made.logprobs, strict=True) if made.logprobs is not None else ():
            piece.logprobs.append(float(found[token].logprob))
            if request.top:
                piece.top.append(top_tokens(found, request.top))
        request.tokens += len(piece.ids)
        if not request.begun:
            request.begun = True
            self._statistics = replace(
                self._statistics,
                prompt_tokens=self._statistics.prompt_tokens + request.prompt,
                cached_tokens=self._statistics.cached_tokens + piece.cached,
            )
        if output.finished:
            del self._requests[output.request_id]
            self._finish(piece, made, request)
        return piece

    def _finish(self, piece: Piece, made: Any, request: _Request) -> None:
        """Set why a response ended. Raises RuntimeError for one that vLLM gave up."""
        if made.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"a request ended with {made.finish_reason}")
        piece.finish = Finish.STOP if made.finish_reason == "stop" else Finish.LENGTH
        if piece.ids and piece.ids[-1] in request.stop:
            piece.finish = Finish.STOP
            del piece.ids[-1]
            del piece.logprobs[len(piece.ids) :], piece.top[len(piece.ids) :]

    def _cache_use(self) -> float:
        held = sum(each.tokens for each in list(self._requests.values()) if each.begun)
        return min(held / max(self._statistics.cache_tokens, 1), 1.0)


def _tokens(prompt: Sequence[int]) -> dict[str, list[int]]:
    """Return a prompt in vLLM's form."""
    return {"prompt_token_ids": [int(token) for token in prompt]}
