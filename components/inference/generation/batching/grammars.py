"""JSON schemas as masks of the next token, by llguidance."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any, Self

import numpy as np
import torch

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.batching.json_schemas import check_schema, no_grammar

MOST_COMPILED = 64
"""Schemas whose grammars are kept."""
WHITESPACE = r"( |\n {0,32})"
"""Whitespace between two parts of the JSON, if any. Where any amount is allowed, some models generate nothing else."""


class GrammarState:
    """Place of one response in a grammar.

    Args:
        matcher: llguidance's LLMatcher.
        vocabulary: tokens of the model.
    """

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def copy(self) -> Self:
        """Return the same place, for another response."""
        return type(self)(self._matcher.deep_copy(), self._vocabulary)

    def allowed(self, stop: Collection[int]) -> torch.Tensor:
        """Return the tokens that may follow, bool [V]. stop: ids that end a response that is complete."""
        from llguidance.numpy import fill_next_token_bitmask

        bits = np.zeros((1, -(-self._vocabulary // 32)), np.int32)
        fill_next_token_bitmask(self._matcher, bits)
        found = torch.from_numpy(np.unpackbits(bits.view(np.uint8), count=self._vocabulary, bitorder="little") > 0)
        found[[token for token in stop if token < self._vocabulary]] = self._matcher.is_accepting()
        return found

    def add(self, token: int, ends: bool) -> bool:
        """Append a token; returns True if nothing can follow. ends: it is a stop token, and none of the JSON's.

        Raises DataError for a schema that is too complex.
        """
        if not ends:
            self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise no_grammar(_first_line(self._matcher.get_error()))
        return bool(self._matcher.is_stopped())


class Grammars:
    """Grammars of JSON schemas for the tokens of a model.

    Args:
        tokenizer: of transformers.
        vocabulary: tokens of the model.

    Raises DataError where llguidance is not installed, or does not take the tokenizer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        try:
            import llguidance
            import llguidance.hf
        except ImportError:
            what = "the engine transformers follows no JSON schema without llguidance"
            raise DataError(what, fix="pip install 'raypath[generate]'") from None
        self._matcher, self._vocabulary = llguidance.LLMatcher, vocabulary
        self._compiled: OrderedDict[str, GrammarState] = OrderedDict()
        try:
            self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary)
        except ValueError as error:
            what = f"the engine transformers follows no JSON schema with this tokenizer ({_first_line(str(error))})"
            raise DataError(what) from None

    def start(self, schema: str) -> GrammarState:
        """Return the start of a response. Raises DataError for a text that is no JSON schema, or one without a
        grammar."""
        found = self._compiled.get(schema)
        if found is None:
            found = self._compiled[schema] = self._compile(schema)
            if len(self._compiled) > MOST_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(schema)
        return found.copy()

    def _compile(self, schema: str) -> GrammarState:
        check_schema(schema)
        try:
            grammar = self._matcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE})
        except ValueError as error:  # the schema true, and false
            raise no_grammar(_first_line(str(error))) from None
        matcher = self._matcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise no_grammar(_first_line(matcher.get_error()))
        return GrammarState(matcher, self._vocabulary)


def allowed_tokens(
    states: Sequence[GrammarState | None], stop: Sequence[Collection[int]], vocabulary: int
) -> torch.Tensor | None:
    """Return the tokens that may follow in each row, bool [B, V]; None where no row has a grammar."""
    if not any(states):
        return None
    free = torch.ones(vocabulary, dtype=torch.bool)
    return torch.stack([free if state is None else state.allowed(ids) for state, ids in zip(states, stop, strict=True)])


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason"])[0]
