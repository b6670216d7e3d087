"""Check of JSON schemas before their requests join the others: a grammar that does not compile breaks a pipeline."""

from __future__ import annotations

from typing import Any

from raypath.components.inference.generation.batching.json_schemas import check_schema, no_grammar
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.openvino_genai.pipeline import import_genai, open_pipeline
from raypath.components.inference.generation.openvino_genai.requests import as_tensor, request_config

MOST_CHECKED = 1_000
"""Schemas that are remembered."""


class GrammarCheck:
    """Compiles schemas in the pipeline of a decoder of one narrow layer. vocabulary: tokens of the model."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._pipeline: Any = None
        self._checked: dict[str, None] = {}

    def check(self, grammar: str) -> None:
        """Raise DataError for a text that is no JSON schema, or one without a grammar."""
        if grammar in self._checked:
            return
        check_schema(grammar)
        genai = import_genai()
        if self._pipeline is None:
            self._pipeline = open_pipeline(self._decoder(), self._tokenizer, "fp32", 1, 256, prefixes=False).pipeline
        settings = SamplingSettings(max_new_tokens=1, grammar=grammar)
        config = request_config(genai, [0], settings, frozenset({0}), 1, 0)
        handle = self._pipeline.add_request(0, as_tensor([0]), config)
        try:
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
        except RuntimeError as error:
            handle.cancel()
            self._pipeline = None  # its state is undefined
            reason = str(error).strip().splitlines()[0].rpartition(": ")[2]
            raise no_grammar(reason) from None
        if len(self._checked) >= MOST_CHECKED:
            self._checked.clear()
        self._checked[grammar] = None

    def _decoder(self) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        return LlamaForCausalLM(LlamaConfig(vocab_size=self._vocabulary, tie_word_embeddings=True, **shape))
