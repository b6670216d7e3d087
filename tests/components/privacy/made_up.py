"""Made-up texts with personal data and with what only looks like it, by templates and a seed.

Forms follow how people write such items, and not the patterns: with spaces, dashes, dots, brackets, country codes,
fullwidth digits and line breaks, in prose, JSON, URLs, code, tables and logs. No number is one of a real person by intent.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.components.privacy import made_up_items as items
from tests.components.privacy import made_up_words as words

Make = Callable[[random.Random], str]


@dataclass
class Text:
    """A text. found: start, end and kind of each item in it."""

    text: str = ""
    found: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, part: str, kind: str = "") -> None:
        """Append a part, which is an item of this kind."""
        if kind:
            self.found.append((len(self.text), len(self.text) + len(part), kind))
        self.text += part


def texts(language: str, number: int, seed: int = 0) -> list[Text]:
    """Return this many texts of a language, en or zh; a third has hard negatives alone."""
    rng = random.Random(f"{language} {seed}")
    return [_text(language, rng, n) for n in range(number)]


def _text(language: str, rng: random.Random, number: int) -> Text:
    made = Text()
    templates, negatives = words.TEMPLATES[language], words.NEGATIVES[language]
    if number % 3 == 2:
        chosen = rng.sample(negatives, rng.randint(1, 3))
    else:
        chosen = [rng.choice(templates) for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.5:
            chosen.append(rng.choice(negatives))
    rng.shuffle(chosen)
    for n, template in enumerate(chosen):
        if n:
            made.add(rng.choice(words.JOINTS[language]))
        _fill(made, template, language, rng)
    return made


def _fill(made: Text, template: str, language: str, rng: random.Random) -> None:
    """Add a template; {kind} is an item, {=name} something that is none."""
    for part in re.split(r"(\{=?[a-z_]+\})", template):
        if not re.fullmatch(r"\{=?[a-z_]+\}", part):
            made.add(part)
            continue
        name = part.strip("{}")
        if name.startswith("="):
            made.add(items.NEGATIVES[name[1:]](rng))
            continue
        for key in (f"{name}_{language}", name):
            if key in items.ITEMS:
                made.add(items.ITEMS[key](rng), KINDS.get(name, name))
                break
        else:
            raise KeyError(name)


KINDS = {
    **dict.fromkeys(("email_json", "email_url", "email_spelt"), "email"),
    **dict.fromkeys(("phone_plain", "phone_local", "phone_link"), "phone"),
    **dict.fromkeys(("passport_zone",), "passport"),
    **dict.fromkeys(("plate_named",), "plate"),
    **dict.fromkeys(("password", "token", "credential"), "secret"),
    **dict.fromkeys(("born", "born_words"), "birth_date"),
    **dict.fromkeys(("ssn_plain",), "ssn"),
}
"""Kinds of items that have several forms."""
