"""Conversations and preferences from the reports on bird strikes of the United States Federal Aviation Administration.

The conversations have the short remarks, and the preferences longer ones: no remark is in both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

RECORD = "Write the record of this bird strike as JSON."
"""System message of the conversations."""
SHORT_REMARK, LONGER_REMARK = range(20, 81), range(81, 121)
"""Lengths in characters of the remarks of conversations and of preferences: a training on them takes minutes."""
_IRREGULAR = {"geese": "goose", "mice": "mouse"}


class _Strike(NamedTuple):
    """A pilot's remark and the record of the report."""

    remark: str
    record: dict[str, str]

    @property
    def prompt(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": RECORD}, {"role": "user", "content": self.remark}]


def conversations(frame: Any) -> Any:
    """Make a conversation of each short remark: the answer is its record."""
    import pandas as pd  # type: ignore[import-untyped]

    found = _strikes(frame, SHORT_REMARK)
    rows = [[*strike.prompt, {"role": "assistant", "content": json.dumps(strike.record)}] for strike in found]
    return pd.DataFrame({"messages": rows})


def preferences(frame: Any) -> Any:
    """Make a pair of each longer remark: the chosen answer is its record, the rejected one has a wrong field.

    The field is the animal, the phase or the number in turn, with the value of the nearest report before that has
    another, so that wrong values are as frequent as in the reports.
    """
    import pandas as pd

    found = list(_strikes(frame, LONGER_REMARK))
    fields = list(found[0].record)
    rows = []
    for number, strike in enumerate(found):
        field = fields[number % len(fields)]
        others = (found[number - back].record[field] for back in range(1, len(found)))
        wrong = next(value for value in others if value != strike.record[field])
        answers = json.dumps(strike.record), json.dumps(strike.record | {field: wrong})
        rows.append((strike.prompt, *answers))
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])


def _strikes(frame: Any, lengths: range) -> Iterator[_Strike]:
    """Yield the reports whose remark has one of these lengths and names the animal of the record.

    Of most reports the record has more than the remark says, which a model could only make up.
    """
    frame = frame.dropna(subset=["remarks", "phase_of_flt", "species", "birds_struck"])
    frame = frame.assign(remark=frame["remarks"].str.split().str.join(" "))
    frame = frame[frame["remark"].str.len().isin(lengths) & (frame["birds_struck"] != "0")]
    for row in frame.drop_duplicates("remark").itertuples():
        animal = row.species.lower()
        if "unknown" not in animal and _words(animal)[-1] in _words(row.remark.lower()):
            yield _Strike(row.remark, {"animal": animal, "phase": row.phase_of_flt.lower(), "number": row.birds_struck})


def _words(text: str) -> list[str]:
    """Return the words of a text in the singular."""
    found = re.findall("[a-z]+", text)
    return [_IRREGULAR.get(word) or (word if word.endswith("ss") else word.removesuffix("s")) for word in found]
