"""Count of the prompt tokens that the prefix cache holds, for metering.

openvino-genai reports no such count. This repeats its rule: keys and values are kept in blocks, found by all tokens up
to their end, and the least recently used ones are overwritten. When memory is short its order differs in detail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from raypath.components.inference.generation.openvino_genai.pipeline import BLOCK


class PrefixBlocks:
    """Blocks of tokens in the cache. blocks: that it holds."""

    def __init__(self, blocks: int) -> None:
        self._most = blocks
        self._known: OrderedDict[int, None] = OrderedDict()

    def count(self, prompt: Sequence[int]) -> int:
        """Return the tokens of a prompt that are in the cache. At least one is computed anew."""
        found = 0
        for block in _hashes(prompt[: len(prompt) - 1]):
            if block not in self._known:
                break
            self._known.move_to_end(block)
            found += BLOCK
        return found

    def add(self, ids: Sequence[int]) -> None:
        """Add the tokens of a prompt, or of a prompt and its response."""
        for block in _hashes(ids):
            self._known[block] = None
            self._known.move_to_end(block)
        while len(self._known) > self._most:
            self._known.popitem(last=False)


def _hashes(ids: Sequence[int]) -> Iterator[int]:
    """Yield the hash of all tokens up to the end of each whole block."""
    packed, before = np.asarray(ids, np.int64).tobytes(), 0
    for start in range(0, len(ids) // BLOCK * BLOCK * 8, BLOCK * 8):
        before = hash((before, packed[start : start + BLOCK * 8]))
        yield before
