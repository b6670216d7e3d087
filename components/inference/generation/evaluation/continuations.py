"""Scores of continuations, and responses, of a language model, as lm-evaluation-harness requests them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raypath.components.core.arrays import Array
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.transformers_engine import TransformersEngine

TOKENS = {"cpu": 2_048, "cuda": 65_536}
"""Tokens of a batch, with padding."""
MOST_NEW = 256
"""Tokens of a response where the task sets no number."""


class ContinuationScorer:
    """Scores texts by an engine's model, and generates with it."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self._tokenizer = engine.tokenizer
        config = engine.model.config.get_text_config(decoder=True)
        self._context = int(getattr(config, "max_position_embeddings", 0) or 2**31)

    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation in nats, and True if greedy decoding gives it.

        pairs: context and continuation.
        """
        return self._scores([self._pair(*pair) for pair in pairs])

    def texts(self, texts: Sequence[str]) -> list[float]:
        """Return the log-probability of each text, in windows of the model's context."""
        found = []
        for text in texts:
            ids = self._encode(text)
            size = self._context - 1
            windows = [ids[start : start + size] for start in range(0, len(ids), size)]
            before = [self._start(), *(window[-1] for window in windows[:-1])]
            scores = self._scores([([first], window) for first, window in zip(before, windows, strict=True)])
            found.append(sum(score for score, _ in scores))
        return found

    def responses(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Return a response to each context, which ends before the first of its stop strings.

        requests: context and settings, by the names of lm_eval.
        """
        groups: dict[tuple[Any, ...], list[int]] = {}
        for n, (_, given) in enumerate(requests):
            groups.setdefault(_sampling(given), []).append(n)
        found = [""] * len(requests)
        for (until, most, temperature, top_p), rows in groups.items():
            single = [ids[0] for ids in map(self._encode, until) if len(ids) == 1]
            settings = SamplingSettings(most, temperature, top_p, stop=frozenset(single))
            prompts = [(self._encode(requests[n][0]) or [self._start()])[-(self._context - most) :] for n in rows]
            for n, answer in zip(rows, self._engine.generate(prompts, settings), strict=True):
                found[n] = _cut(answer.text, until)
        return found

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _start(self) -> int:
        """Return the token that a text without a context follows."""
        given = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        return next((int(token) for token in given if token is not None), 0)

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Divide the tokens of both together, as lm_eval's own models do: a space belongs to the word after it."""
        space = len(context) - len(context.rstrip())
        if space:
            context, continuation = context[:-space], context[-space:] + continuation
        if not context:
            return [self._start()], self._encode(continuation)
        before = self._encode(context)
        return before, self._encode(context + continuation)[len(before) :]

    def _scores(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Score continuations, the longest first; a context that is too long loses its beginning."""
        import torch

        rows = [(*before, *after)[-self._context :] for before, after in pairs]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        with torch.inference_mode():
            for group in _batches([len(row) for row in rows], TOKENS[self._engine.model.device.type]):
                width = len(rows[group[0]])
                ids = torch.tensor([[*rows[n], *[0] * (width - len(rows[n]))] for n in group])
                mask = torch.tensor([[1] * len(rows[n]) + [0] * (width - len(rows[n])) for n in group])
                place = self._engine.model.device
                logits = self._engine.model(input_ids=ids.to(place), attention_mask=mask.to(place)).logits
                for n, each in zip(group, logits, strict=True):
                    found[n] = _score(each, rows[n], len(pairs[n][1]))
        return found


def _score(logits: Any, row: Sequence[int], scored: int) -> tuple[float, bool]:
    """Score the last tokens of a row. logits: [width, vocabulary]."""
    import torch

    first, last = len(row) - scored, len(row)
    chances = torch.log_softmax(logits[first - 1 : last - 1].float(), dim=-1)
    wanted = torch.tensor(row[first:last], device=chances.device)
    total = chances.gather(1, wanted[:, None]).sum()
    return float(total), bool((chances.argmax(dim=-1) == wanted).all())


def _batches(lengths: Sequence[int] | Array, most: int) -> list[list[int]]:
    """Group rows, the longest first, up to `most` tokens with padding."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > most:
            groups.append([])
        groups[-1].append(row)
    return groups


def _sampling(given: Mapping[str, Any]) -> tuple[tuple[str, ...], int, float, float]:
    """Return stop strings, most tokens, temperature and top_p of a request."""
    until = given.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    most = int(given.get("max_gen_toks", given.get("max_new_tokens", MOST_NEW)))
    drawn = bool(given.get("do_sample", False))
    return until, most, float(given.get("temperature") or 0) if drawn else 0.0, float(given.get("top_p") or 1.0)


def _cut(text: str, until: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    return text[: min((found for stop in until if stop and (found := text.find(stop)) >= 0), default=len(text))]
