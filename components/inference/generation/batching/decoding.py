"""Decoding of a batch: prompts padded on the left, one forward pass a token.

Rows leave a batch when they are finished, and batches are joined between steps where their caches allow it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.batching import kv_cache
from raypath.components.inference.generation.batching.grammars import GrammarState, allowed_tokens
from raypath.components.inference.generation.batching.row_adapters import RowAdapters
from raypath.components.inference.generation.batching.sampling import Sampler
from raypath.components.inference.generation.engine import Finish, SamplingSettings
from raypath.components.inference.generation.streaming_engine import TopTokens

COMPACT = 0.75
"""Share of unfinished rows at which the finished ones are dropped from the batch."""


@dataclass
class Answer:
    """Request, and its answer while it is written.

    limit: most tokens. stop: ids that end it. repeat: see `Sampler`. grammar: of its JSON schema, None for none.
    """

    prompt: Sequence[int]
    settings: SamplingSettings
    limit: int
    stop: frozenset[int] = frozenset()
    repeat: int = 0
    grammar: GrammarState | None = None
    request_id: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[TopTokens] = field(default_factory=list)
    finish: Finish | None = None
    error: DataError | None = None
    """Set for a request that failed alone."""
    aborted: bool = False
    sent: int = 0
    """Tokens that were streamed."""

    @property
    def is_open(self) -> bool:
        """True while tokens are wanted."""
        return self.finish is None and self.error is None and not self.aborted

    def again(self) -> Answer:
        """Return the same request without a token."""
        return Answer(
            self.prompt, self.settings, self.limit, self.stop, self.repeat, self.grammar and self.grammar.copy()
        )

    def add(self, token: int, logprob: float, top: TopTokens) -> None:
        """Append a token; the answer ends with a stop token, or at its limit."""
        ends, complete = token in self.stop, False
        try:
            complete = self.grammar is not None and self.grammar.add(token, ends)
        except DataError as error:
            self.error = error
            return
        if ends:
            self.finish = Finish.STOP
            return
        self.ids.append(token)
        self.logprobs.append(logprob)
        if top:
            self.top.append(top)
        if complete:
            self.finish = Finish.STOP
        elif len(self.ids) >= self.limit:
            self.finish = Finish.LENGTH


class Forward:
    """Calls of a model with the arguments that its class has, and with the adapters of its rows."""

    def __init__(self, model: Any, adapters: RowAdapters) -> None:
        self.model, self._adapters = model, adapters
        self._known = set(inspect.signature(model.forward).parameters)

    def __call__(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Any, names: Sequence[str]
    ) -> Any:
        """Return the logits of the last token of each row, float32 [B, V]. ids, positions: int64 [B, new]. names: of
        the adapter of each row, "" for none."""
        given: dict[str, Any] = {"attention_mask": mask, "use_cache": True}
        # The newer name of the argument; the older one warns.
        given["cache" if "cache" in self._known else "past_key_values"] = cache
        if "position_ids" in self._known:
            given["position_ids"] = positions
        if "logits_to_keep" in self._known:
            given["logits_to_keep"] = 1
        with self._adapters.applied(names, ids.shape[1]):
            return self.model(input_ids=ids, **given).logits[:, -1].float()


class RunningBatch:
    """Rows that are answered together. The first forward pass, over the prompts, is made at once."""

    def __init__(self, forward: Forward, answers: Sequence[Answer]) -> None:
        """Raises torch.OutOfMemoryError."""
        self.rows = list(answers)
        self._forward, device = forward, forward.model.device
        prompts = [each.prompt for each in self.rows]
        config = forward.model.config
        ids, mask = (each.to(device) for each in _pad_left(prompts))
        self._mask, self._positions = mask, (mask.cumsum(dim=1) - 1).clamp(min=0)
        self._cache = kv_cache.new_cache(config, ids.shape[1] + max(each.limit for each in self.rows))
        self._sampler = Sampler(
            [each.settings for each in self.rows],
            prompts,
            [each.repeat for each in self.rows],
            config.get_text_config(decoder=True).vocab_size,
        )
        self._padded = not bool(mask.all())
        self._next = ids
        self._run()

    @property
    def open_rows(self) -> list[Answer]:
        """Rows that want tokens."""
        return [each for each in self.rows if each.is_open]

    @property
    def width(self) -> int:
        """Tokens of the longest row, with padding."""
        return int(self._mask.shape[1])

    def step(self) -> None:
        """Add a token to each open row. At least one is open."""
        left = [n for n, row in enumerate(self.rows) if row.is_open]
        if len(left) <= COMPACT * len(self.rows):
            self._keep(left)
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        self._run()

    def join(self, other: RunningBatch) -> bool:
        """Append the open rows of another batch; False if the caches do not allow it, and nothing is changed."""
        pair = (self, other)
        if not all(kv_cache.is_joinable(each._cache, each._forward.model.config) for each in pair):
            return False
        kept = [[n for n, row in enumerate(each.rows) if row.is_open] for each in pair]
        masks = [each._mask[rows] for each, rows in zip(pair, kept, strict=True)]
        widths = [int(mask.sum(dim=1).max()) if len(mask) else 0 for mask in masks]
        width = max(widths)
        more = max(row.limit - len(row.ids) for each in pair for row in each.open_rows)
        parts = [(each._cache, rows, wide) for each, rows, wide in zip(pair, kept, widths, strict=True)]
        self._cache = kv_cache.joined(self._forward.model.config, parts, width, width + more)
        self._mask = torch.cat(
            [
                torch.nn.functional.pad(mask[:, mask.shape[1] - wide :], (width - wide, 0))
                for mask, wide in zip(masks, widths, strict=True)
            ]
        )
        for each, rows in zip(pair, kept, strict=True):
            each._sampler.keep(rows)
        self._sampler.join(other._sampler)
        self._next, self._positions = (
            torch.cat([getattr(each, name)[rows] for each, rows in zip(pair, kept, strict=True)])
            for name in ("_next", "_positions")
        )
        self.rows = [each.rows[n] for each, rows in zip(pair, kept, strict=True) for n in rows]
        self._padded = not bool(self._mask.all())
        return True

    def _run(self) -> None:
        # Without padding, attention needs no mask, and takes a faster kernel.
        mask, names = self._mask if self._padded else None, [row.settings.adapter for row in self.rows]
        logits = self._forward(self._next, mask, self._positions, self._cache, names)
        grammars = [row.grammar if row.is_open else None for row in self.rows]
        drawn = self._sampler.draw(
            logits, allowed_tokens(grammars, [row.stop for row in self.rows], int(logits.shape[1]))
        )
        found = zip(self.rows, drawn.tokens.tolist(), drawn.logprobs.tolist(), drawn.top, strict=True)
        for row, token, logprob, top in found:
            if row.is_open:
                row.add(token, logprob, top)
        self._next, self._positions = drawn.tokens[:, None], self._positions[:, -1:] + 1

    def _keep(self, left: list[int]) -> None:
        kept = torch.tensor(left, device=self._mask.device)
        self._cache.reorder_cache(kept)
        self._sampler.keep(left)
        self.rows = [self.rows[n] for n in left]
        self._next, self._positions, self._mask = self._next[kept], self._positions[kept], self._mask[kept]


def decode(forward: Forward, answers: Sequence[Answer]) -> None:
    """Answer a batch of requests. Raises torch.OutOfMemoryError."""
    batch = RunningBatch(forward, answers)
    while batch.open_rows:
        batch.step()


def _pad_left(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids int64 [B, width] and the mask of real tokens int64 [B, width]."""
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.int64)
    mask = torch.ones((len(prompts), width), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, : width - len(prompt)] = 0
    return ids, mask
