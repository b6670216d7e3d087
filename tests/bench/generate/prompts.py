"""Requests of the benchmark: conversations of about a number of tokens, alike for all servers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

WORDS = (
    *("river", "stone", "garden", "window", "letter", "market", "winter", "paper", "bridge", "island", "morning"),
    *("village", "doctor", "music", "silver", "forest", "kitchen", "machine", "harbor", "picture", "summer", "table"),
)
"""Words of one token each, with the space before them; the comma after each is another."""
AROUND, AROUND_SYSTEM = 45, 12
"""Tokens of a prompt beside the words: of the template, its own system message and the task; of a system message."""
SHARED = 0.9
"""Share of a prompt that is a system message which all have."""


class Cell(BaseModel):
    """One measurement. prompt: about as many tokens. shared: most of it is one system message. tokens: new ones."""

    model_config = ConfigDict(frozen=True)

    clients: int
    prompt: int
    tokens: int
    shared: bool = False

    @property
    def name(self) -> str:
        """Name of the cell without its clients."""
        return f"{self.prompt:,}{' shared' if self.shared else ''} + {self.tokens}"

    @property
    def requests(self) -> int:
        """Requests that all clients send together: at least three, and two a client where that is soon done."""
        return max(3, self.clients * (2 if self.clients <= 8 else 1))


def bodies(cell: Cell, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield requests that differ from the first word of the user on. Responses are as long as is allowed."""
    rng = random.Random(seed)
    own = int(cell.prompt * (1 - SHARED)) if cell.shared else cell.prompt
    for _ in range(count):
        text = "Write a very long story, of at least ten pages, about these things: "
        messages = [{"role": "user", "content": text + _words(rng, own - AROUND)}]
        if cell.shared:
            common = _words(random.Random(0), cell.prompt - own - AROUND_SYSTEM)
            messages.insert(0, {"role": "system", "content": f"You write stories. Words that you like: {common}"})
        yield {"messages": messages, "max_tokens": cell.tokens, "temperature": 0, "stream": True}


def _words(rng: random.Random, tokens: int) -> str:
    return ", ".join(rng.choice(WORDS) for _ in range(max(tokens // 2, 4)))
