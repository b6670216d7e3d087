"""Guess the kind of each column, and which is the text, the label, the split and the group, each with the reason.

Kinds are guessed from all rows. A guess is a proposal for a person, or for `raypath inspect`; `read` takes what its
settings name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.errors import DataError
from raypath.components.data.sources.files import SPLIT_NAMES

MAX_DISTINCT = 10_000
MAX_COLUMNS = 16_384
"""Columns that are described; a sheet of Excel has at most so many."""
_FORMS = {
    "boolean": r"^\s*(?i:true|false|yes|no)\s*$",
    "number": r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$",
    "comma": r"^\s*[+-]?(\d{1,3}(\.\d{3})+,\d+|\d*,(\d{1,2}|\d{4,}))\s*$",
    "integer": r"^\s*-?\d+(\.0*)?\s*$",
    "time": r"^\s*\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d{1,2}:\d{2}.*)?\s*$|^\s*\d{1,2}[./]\d{1,2}[./]\d{4}\s*$",
    "list": r"^\s*\[.*\]\s*$",
    "bars": r"\|",
}
_TEXT_NAMES = (
    "text",
    "review",
    "body",
    "content",
    "comment",
    "message",
    "sentence",
    "description",
    "document",
    "title",
)
_LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "sentiment", "score", "rating", "stars", "topic", "genre"),
    *("genres", "tag", "tags", "intent", "y"),
)
_GROUP_NAMES = ("author", "user", "customer", "group", "patient", "speaker", "account", "session", "thread", "writer")
_SPLIT_NAMES = ("split", "fold", "subset", "partition")


@dataclass
class Profile:
    """Counts over the values of one column. forms: values of each form; hashes: of distinct values, to MAX_DISTINCT."""

    name: str
    rows: int = 0
    missing: int = 0
    characters: int = 0
    words: int = 0
    forms: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_FORMS, 0))
    splits: int = 0
    """Values that name a split."""
    first: str = ""
    """First value."""
    hashes: set[int] = field(default_factory=set)

    @property
    def present(self) -> int:
        return self.rows - self.missing

    @property
    def distinct(self) -> int:
        return len(self.hashes)

    def share(self, form: str) -> float:
        """Share of the present values that have a form."""
        return self.forms[form] / max(self.present, 1)

    @property
    def has_comma(self) -> bool:
        """True if the values are numbers, and some have a decimal comma."""
        return self.forms["comma"] > 0 and self.share("comma") + self.share("integer") > 0.99

    def add(self, column: Any, rows: int) -> None:
        """Add values: a column of strings, or None for a file that lacks it."""
        self.rows += rows
        if column is None:
            self.missing += rows
            return
        filled = pc.fill_null(pc.not_equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), False)
        values = column.filter(filled)
        self.missing += rows - len(values)
        if not len(values):
            return
        self.first = self.first or values[0].as_py()
        self.characters += pc.sum(pc.utf8_length(values)).as_py()
        self.words += pc.sum(pc.count_substring_regex(values, r"\S+")).as_py()
        self._add_forms(values)

    def _add_forms(self, values: Any) -> None:
        unique = pc.unique(values)
        for form, pattern in _FORMS.items():
            self.forms[form] += pc.sum(pc.match_substring_regex(values, pattern)).as_py() or 0
        if self.distinct <= MAX_DISTINCT:
            texts = unique.to_pylist()
            self.hashes.update(hash(text.strip()) for text in texts[: MAX_DISTINCT + 1])
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        self.splits += pc.sum(pc.is_in(lowered, pa.array(list(SPLIT_NAMES)))).as_py() or 0


@dataclass(frozen=True)
class Guess:
    """Kind and role of a column, with the reason. role: text, label, group, split or ""."""

    name: str
    kind: str
    why: str
    role: str = ""


def check_number(columns: int) -> None:
    """Raise DataError for more columns than are described."""
    if columns > MAX_COLUMNS:
        what = f"there are {columns:,} columns; inspect describes at most {MAX_COLUMNS:,}"
        raise DataError(what, fix="write the columns of texts and labels to a file of their own")


def profile(tables: Iterable[Any]) -> list[Profile]:
    """Count the values of all columns; the tables have columns of strings, as `raw_tables` gives them."""
    found: dict[str, Profile] = {}
    rows = 0
    for table in tables:
        columns = dict(zip(table.column_names, table.columns, strict=True))
        for name in columns:
            if name not in found:
                found[name] = Profile(name, rows, rows)
        check_number(len(found))
        for name, each in found.items():
            each.add(columns.get(name), table.num_rows)
        rows += table.num_rows
    return list(found.values())


def kind_of(column: Profile) -> tuple[str, str]:
    """Return the kind of a column and the reason."""
    if not column.present:
        return "empty", "it has no values"
    distinct = f"more than {MAX_DISTINCT:,}" if column.distinct > MAX_DISTINCT else f"{column.distinct:,}"
    values = "value" if column.distinct == 1 else "values"
    unique = column.distinct >= min(column.present, MAX_DISTINCT)
    words = column.words / column.present
    if column.share("boolean") == 1:
        return "boolean", "all values are true or false, yes or no"
    if column.share("list") > 0.99:
        return "set", "values are lists"
    if column.share("time") > 0.99:
        return "time", "values are dates"
    if column.has_comma:
        return "number", f"values are numbers with a decimal comma, {distinct} distinct"
    if column.share("number") > 0.99:
        return _kind_of_numbers(column, distinct, unique)
    share = 0.5 if words <= 3 and _named(column.name, _LABEL_NAMES) else 0.05
    few = column.distinct <= max(20, min(1_000, share * column.present))
    if column.share("bars") > 0.2 and words < 8:
        return "set", "values have parts separated by |"
    if few and words <= 6 and not (unique and column.present > 20):
        return "category", f"{distinct} distinct {values}"
    if unique and words <= 1.2 and column.characters / column.present <= 64 and column.present > 20:
        return "id", "every value is another one, without spaces"
    return "text", f"{distinct} distinct {values} of {words:.0f} {'word' if round(words) == 1 else 'words'} on average"


def _kind_of_numbers(column: Profile, distinct: str, unique: bool) -> tuple[str, str]:
    whole = column.share("integer") > 0.99
    if whole and unique and column.present > 20 and _named(column.name, ("id", "index", "row", "nr", "number")):
        return "id", "every value is another integer, and the name says so"
    if whole and column.distinct <= min(20, max(2, column.present // 10)):
        return "category", f"{distinct} distinct {'integer' if column.distinct == 1 else 'integers'}"
    return "number", f"values are numbers, {distinct} distinct"


def guess_columns(columns: list[Profile]) -> list[Guess]:
    """Guess kinds and roles; at most one column has each role."""
    guesses = {column.name: Guess(column.name, *kind_of(column)) for column in columns}
    profiles = {column.name: column for column in columns}
    for role, choose in (("split", _split), ("text", _text), ("label", _label), ("group", _group)):
        free = [guess for guess in guesses.values() if not guess.role]
        chosen = choose(free, profiles)
        if chosen:
            name, why = chosen
            old = guesses[name]
            guesses[name] = Guess(name, old.kind, f"{old.why}; {why}", role)
    return list(guesses.values())


Chosen = tuple[str, str] | None


def _split(free: list[Guess], profiles: dict[str, Profile]) -> Chosen:
    for guess in free:
        column = profiles[guess.name]
        if column.present and column.splits == column.present and column.distinct <= len(SPLIT_NAMES):
            return guess.name, "the values are names of splits"
    return None


def _text(free: list[Guess], profiles: dict[str, Profile]) -> Chosen:
    texts = [guess for guess in free if guess.kind == "text"]
    named = [guess for guess in free if guess.kind in ("text", "id", "category") and _named(guess.name, _TEXT_NAMES)]
    candidates = [guess for guess in texts if guess in named] or texts or named
    if not candidates:
        return None
    # The name decides between texts, unless one is much longer.
    best = max(candidates, key=lambda guess: profiles[guess.name].characters)
    longest = max(texts, key=lambda guess: profiles[guess.name].characters, default=best)
    if profiles[longest.name].characters > 5 * profiles[best.name].characters:
        best = longest
    named_so = _named(best.name, _TEXT_NAMES)
    return best.name, "the name is that of a text" if named_so else "it has the longest values"


def _label(free: list[Guess], profiles: dict[str, Profile]) -> Chosen:
    usable = [guess for guess in free if guess.kind in ("category", "boolean", "set", "number")]
    named = sorted((n for n in usable if _named(n.name, _LABEL_NAMES)), key=lambda g: _rank(g.name, _LABEL_NAMES))
    varied = [guess for guess in usable if profiles[guess.name].distinct > 1]
    for guess in [guess for guess in named if guess in varied] or (named if not varied else []):
        return guess.name, "the name is that of a label"
    classes = [guess for guess in varied if guess.kind != "number"]
    if classes:
        best = min(classes, key=lambda guess: profiles[guess.name].distinct)
        return best.name, "of the columns of classes it has the fewest"
    return None


def _group(free: list[Guess], profiles: dict[str, Profile]) -> Chosen:
    for guess in free:
        column = profiles[guess.name]
        repeats = 2 < column.distinct < 0.8 * column.present
        if repeats and guess.kind != "text" and _named(guess.name, _GROUP_NAMES):
            return guess.name, "the name is that of a group, and values repeat"
    return None


def _named(name: str, words: tuple[str, ...]) -> bool:
    return _rank(name, words) < len(words)


def _rank(name: str, words: tuple[str, ...]) -> int:
    """Position of the first word that the name is, begins or ends with; the number of words if there is none."""
    parts = "".join(sign if sign.isalnum() else " " for sign in name.lower()).split()
    return min((words.index(part) for part in parts if part in words), default=len(words))
