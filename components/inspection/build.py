"""Build the report: statistics of all parts, then the findings of each kind; one that fails is left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from raypath.components.core.arrays import Array
from raypath.components.core.context import Context
from raypath.components.inspection.collection.collector import CountTokens, TokenCounter, collect
from raypath.components.inspection.collection.tasks import collect_in_tasks
from raypath.components.inspection.findings import conversations as chats
from raypath.components.inspection.findings import duplicates, labels, texts
from raypath.components.inspection.findings.make import Found
from raypath.components.inspection.params import InspectParams
from raypath.components.inspection.report import Column, InspectionReport, Severity
from raypath.components.inspection.rows import Part
from raypath.components.inspection.statistics import SPLITS, Statistics

Rows = list[tuple[str, Array]]
"""Positions of all rows of each kind of finding."""
_ORDER = list(Severity)


def build_report(
    source: str,
    parts: Sequence[Part],
    params: InspectParams,
    scratch: Path,
    *,
    test_share: float = 0.1,
    columns: list[Column] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
    seed: int = 0,
    tasks: Context | None = None,
    conversations: bool = False,
) -> tuple[InspectionReport, Statistics, Rows]:
    """Inspect parts in one pass. Parts are read again for the features of a base.

    scratch: a folder for columns. tasks: context of the step whose Ray Data tasks read the parts; None reads
    them in this process. conversations: the rows are conversations, whose lengths are those of the base's template.
    """
    skipped: list[str] = []
    tokenizer, limit = _tokenizer(params, skipped, conversations)
    read = partial(collect_in_tasks, ctx=tasks) if tasks else collect
    found = read(parts, scratch, tokenizer, params.texts, progress, seed)
    longest = min(params.max_length, limit or params.max_length) if conversations else params.max_length
    lengths = texts.lengths_of(found, longest, tokenizer is not None)
    steps: list[tuple[str, Callable[[], list[Found]]]] = [
        ("duplicates", lambda: duplicates.duplicates(found, params.similarity)),
        ("labels", lambda: labels.labels(found, params.min_test_rows, test_share)),
        ("truncation", lambda: texts.truncation(found, lengths, limit) if lengths else []),
        ("languages", lambda: texts.languages(found)),
        ("personal data", lambda: texts.personal_data(found)),
        ("conversations", lambda: chats.conversations(found)),
        ("outliers", lambda: texts.outliers(found)),
        ("label errors", lambda: _by_model(found, parts, params, seed, skipped)),
    ]
    made = [each for name, step in steps for each in _attempt(name, step, skipped)]
    made.sort(key=lambda each: _ORDER.index(each[0].severity))
    report = InspectionReport(
        source=source,
        rows=found.rows,
        splits={name: int(found.in_split(name).sum()) for name in SPLITS[1:] if found.in_split(name).any()},
        label_kind=found.label_kind,
        columns=columns or [],
        classes=labels.class_counts(found),
        lengths=lengths,
        conversations=chats.conversation_facts(found),
        languages=texts.language_counts(found),
        personal_data=texts.personal_counts(found),
        findings=[each for each, _ in made],
        skipped=skipped,
    )
    return report, found, [(each.kind, rows) for each, rows in made]


def _by_model(
    found: Statistics, parts: Sequence[Part], params: InspectParams, seed: int, skipped: list[str]
) -> list[Found]:
    """Findings that need the features of the base."""
    from raypath.components.data.tokenization.tokenizer import tokenizer_folder
    from raypath.components.inspection.features import features, texts_at
    from raypath.components.inspection.findings.model import chosen_rows, model_findings

    if not (params.model and params.base):
        skipped.append("label errors, and texts far from others: set inspect.model=true to compute features")
        return []
    rows = chosen_rows(found, params.model_rows, seed)
    return model_findings(found, rows, features(tokenizer_folder(params.base), texts_at(parts, rows)), seed, skipped)


def _attempt(name: str, step: Callable[[], list[Found]], skipped: list[str]) -> list[Found]:
    try:
        return step()
    except Exception as error:
        logging.getLogger("raypath.inspect").debug("%s", name, exc_info=True)
        skipped.append(f"{name}: {type(error).__name__}")
        return []


def _tokenizer(params: InspectParams, skipped: list[str], conversations: bool) -> tuple[CountTokens | None, int | None]:
    """Return a function that counts tokens, and the model's limit; (None, None) without a base."""
    from raypath.components.core.errors import RaypathError
    from raypath.components.data.tokenization.tokenizer import TextTokenizer, model_max_length, tokenizer_folder

    if not params.base:
        skipped.append("lengths in tokens: no inspect.base is set, so words are counted")
        return None, None
    try:
        folder = tokenizer_folder(params.base)
        limit = model_max_length(folder)
        # A conversation is not truncated, and its maximum is that of the base.
        longest = 0 if conversations and limit else params.max_length
        tokenizer = TextTokenizer(folder, max(longest, limit or 4 * longest))
    except RaypathError as error:
        skipped.append(f"lengths in tokens: {error.what}")
        return None, None
    if not conversations:
        return TokenCounter(tokenizer), limit
    from raypath.components.models.chat_template import ChatTemplate

    try:
        return TokenCounter(tokenizer, ChatTemplate.load(folder)), limit
    except RaypathError as error:
        skipped.append(f"lengths by a chat template: {error.what}")
        return TokenCounter(tokenizer), limit
