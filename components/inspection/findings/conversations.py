"""Conversations: statistics, prompts that several rows share, and repeated responses."""

from __future__ import annotations

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.conversations import ROLES
from raypath.components.data.wording import percent, plural, verb
from raypath.components.inspection.findings.make import Found, finding
from raypath.components.inspection.report import ConversationFacts, Severity
from raypath.components.inspection.statistics import SPLITS, Statistics
from raypath.components.inspection.texts.conversations import TRAITS

_QUANTILES = {"min": 0, "median": 50, "95%": 95, "max": 100}
_REPEATED = 0.05
"""Share of the rows with the same response from which it is reported."""
_FEWEST = 10
_PROMPTLESS = 1 << TRAITS.index("text without a prompt")


def conversation_facts(found: Statistics) -> ConversationFacts | None:
    """Describe the conversations; None where the rows are texts."""
    present = found.present
    if not found.has_conversations or not present.any():
        return None
    traits = found.traits[present]
    counts = {name: int(((traits >> n) & 1).sum()) for n, name in enumerate(TRAITS)}
    return ConversationFacts(
        messages=_quantiles(found.messages[present]),
        turns=_quantiles(found.messages_of("assistant")[present]),
        roles={role: count for role in ROLES if (count := int(found.messages_of(role)[present].sum()))},
        answer_words=_quantiles(found.answer_words[present]),
        traits={name: count for name, count in counts.items() if count},
    )


def _quantiles(values: Array) -> dict[str, int]:
    chosen = np.percentile(values, list(_QUANTILES.values()), method="lower").astype(int)
    return dict(zip(_QUANTILES, chosen.tolist(), strict=True))


def conversations(found: Statistics) -> list[Found]:
    """Find prompts with several answers, prompts of train that are held out too, and answers that many rows have."""
    if not found.has_conversations:
        return []
    prompted = found.present & ((found.traits & _PROMPTLESS) == 0)
    prompts = [*_shared_prompts(found, prompted), *_leaking_prompts(found, prompted)]
    return [*_invalid(found), *prompts, *_repeated_answers(found, prompted)]


def _invalid(found: Statistics) -> list[Found]:
    """Rows that `read` rejects; in a run there are none."""
    rows = np.flatnonzero(~found.present)
    if not len(rows):
        return []
    text = (
        f"{plural(len(rows), 'row')} ({percent(len(rows), found.rows)}) {verb(len(rows), 'has', 'have')} no valid "
        "conversation, such as one without a response at its end; a run raises an error at the first"
    )
    return [finding("invalid", Severity.ERROR, text, found, rows, {"read.nulls": "drop"})]


def _shared_prompts(found: Statistics, prompted: Array) -> list[Found]:
    """Rows that answer the prompt of an earlier row in another way."""
    rows = np.flatnonzero(prompted)
    _, first, group = np.unique(found.prompts[rows], return_index=True, return_inverse=True)
    again = rows[found.answers[rows] != found.answers[rows[first[group]]]]
    if not len(again):
        return []
    text = (
        f"{plural(len(again), 'row')} ({percent(len(again), found.rows)}) {verb(len(again), 'has', 'have')} the "
        "prompt of an earlier row and another response: the model is trained on both"
    )
    return [finding("prompts_with_several_answers", Severity.NOTE, text, found, again)]


def _leaking_prompts(found: Statistics, prompted: Array) -> list[Found]:
    """Rows of train whose prompt is in valid or test too, with another answer; equal rows are leaks of texts."""
    prompts, texts, splits = found.prompts, found.texts, found.splits
    train = prompted & (splits == SPLITS.index("train"))
    held_out = prompted & np.isin(splits, (SPLITS.index("valid"), SPLITS.index("test")))
    shared = train & np.isin(prompts, prompts[held_out]) & ~np.isin(texts, texts[held_out])
    rows = np.flatnonzero(shared)
    if not len(rows):
        return []
    text = (
        f"{plural(len(rows), 'row')} of train {verb(len(rows), 'has', 'have')} a prompt that is also in valid or test, "
        "with another response; set read.group to a column that groups them"
    )
    return [finding("prompt_leaks", Severity.WARNING, text, found, rows)]


def _repeated_answers(found: Statistics, prompted: Array) -> list[Found]:
    """Rows with the most frequent answer, where it is frequent."""
    rows = np.flatnonzero(prompted & (found.answer_words > 0))
    if not len(rows):
        return []
    answers = found.answers[rows]
    values, counts = np.unique(answers, return_counts=True)
    most = int(counts.max())
    if most < max(_FEWEST, _REPEATED * found.rows) or len(values) < _FEWEST:
        return []
    same = rows[answers == values[counts.argmax()]]
    text = (
        f"{plural(most, 'row')} ({percent(most, found.rows)}) have the same response: the model may learn to "
        "give it to other prompts too"
    )
    return [finding("repeated_answers", Severity.WARNING, text, found, same)]
