"""Shadow traffic of language models: a request is run again by both versions, greedily, when nobody waits.

What a client received may have been drawn at random, and the two versions are compared under the same conditions. Of
the responses only counts are kept: the next tokens that agree, the tokens and the seconds of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from raypath.components.models.base_models import tokenizer_digest
from raypath.components.serving.live.counts import LiveCounts
from raypath.components.serving.live.paired_run import run_both
from raypath.components.serving.model_versions import LoadedLanguageModel
from raypath.components.serving.replica.shadow import ShadowTraffic

if TYPE_CHECKING:
    from raypath.components.inference.generation.engine import SamplingSettings

REPLAY_TOKENS = 256
"""Most tokens of a response that is run again."""
POINTS = 4
"""Places in the champion's response after which the next tokens are compared."""


class ShadowResponses(ShadowTraffic[LoadedLanguageModel]):
    """Shadow traffic of a replica of language models."""

    _comparable = True
    _users: tuple[LoadedLanguageModel, ...] = ()

    def set_versions(self, main: LoadedLanguageModel, shadow: LoadedLanguageModel | None) -> None:
        """Send traffic to this version from now on, None to none.

        A version with other tokens cannot run the same request: all requests are counted as skipped.
        """
        self.set_version(shadow)
        self._comparable = shadow is None or tokenizer_digest(main.folder) == tokenizer_digest(shadow.folder)
        if self.compared is not None and self.compared.responses is None:
            self.compared.responses = LiveCounts()

    def uses(self, model: LoadedLanguageModel) -> bool:
        """Return True while a comparison runs this version, which is not to be closed."""
        return any(model is each for each in self._users)

    def send(self, busy: bool, model: LoadedLanguageModel, prompt: Sequence[int], settings: SamplingSettings) -> None:
        """Run a request that `model` has responded to again, in both versions, unless the replica is busy."""

        async def compare(shadow: LoadedLanguageModel) -> Sequence[float]:
            self._users = (model, shadow)
            try:
                return await self._replay(model, shadow, prompt, settings)
            finally:
                self._users = ()

        self.start(busy or not self._comparable, compare)

    async def _replay(
        self,
        champion: LoadedLanguageModel,
        challenger: LoadedLanguageModel,
        prompt: Sequence[int],
        settings: SamplingSettings,
    ) -> list[float]:
        """Count what both versions show, and return which of the next tokens agree. Raises what the challenger does."""
        counts = self.live.counts if self.live is not None and self.live.is_on(challenger) else None
        most = min(settings.max_new_tokens, REPLAY_TOKENS)
        greedy = replace(settings, temperature=0.0, top_logprobs=0, max_new_tokens=most)

        async def run(model: LoadedLanguageModel) -> tuple[list[int], float]:
            began = perf_counter()
            return await _response(model, prompt, greedy), perf_counter() - began

        found = await run_both(run, champion, challenger)
        one, two = champion.version, challenger.version
        if counts is not None:
            counts.add_trials(one in found.errors, two in found.errors)
        if two in found.errors:
            raise found.errors[two]
        if found.errors:
            return []
        (before, first), (after, second) = found.outputs[one], found.outputs[two]
        agrees = await _agreement(challenger, prompt, greedy, before, after)
        for each in filter(None, (counts, self._shown())):
            each.add_responses(sum(agrees) / len(agrees), (first, len(before)), (second, len(after)))
        return agrees

    def _shown(self) -> LiveCounts | None:
        return None if self.compared is None else self.compared.responses


async def _response(model: LoadedLanguageModel, prompt: Sequence[int], settings: SamplingSettings) -> list[int]:
    return [token async for piece in model.engine.stream(prompt, settings) for token in piece.ids]


async def _agreement(
    model: LoadedLanguageModel,
    prompt: Sequence[int],
    settings: SamplingSettings,
    before: Sequence[int],
    after: Sequence[int],
) -> list[float]:
    """Return 1 for each place in the response `before` where the model, after the same tokens, chooses the same.

    after: the model's own response, which has the first of these tokens, and is the same as far as it does not differ.
    """
    if not before or not after:
        return [float(not before and not after)]
    same = next((n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after))
    found = []
    for place in sorted({len(before) * n // POINTS for n in range(POINTS)}):
        if place < same:
            found.append(1.0)
        elif place == same and same < len(after):
            found.append(0.0)
        else:
            one = replace(settings, max_new_tokens=1, grammar="")
            found.append(float(await _response(model, [*prompt, *before[:place]], one) == [before[place]]))
    return found
