"""Answers of one model to the rows of a split, kept in a file so that an interrupted evaluation resumes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.files import write_atomically
from raypath.components.evaluation.generation.answers import Answers
from raypath.components.inference.generation.engine import Finish, SamplingSettings
from raypath.components.inference.generation.evaluation.conversations import PromptRow
from raypath.components.models.metadata import ModelMetadata


@dataclass(frozen=True)
class Answered:
    """Answers to N rows. tokens: of all answers; seconds: of the generation."""

    texts: list[str]
    stopped: list[bool]
    likelihood: list[list[float]]
    """See `likelihood.score_answers`, [N, 3]."""
    tokens: int
    seconds: float

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def answers(self) -> Answers:
        """Return what metrics take."""
        return Answers(self.texts, self.stopped, np.array(self.likelihood, np.float64).reshape(-1, 3))


def answer(
    folder: Path,
    template_folder: Path,
    metadata: ModelMetadata,
    rows: Sequence[PromptRow],
    settings: SamplingSettings,
    threads: int = 0,
    kept: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Answered:
    """Answer the prompts of the rows, and score the references. Rows without prompts are scored alone.

    Args:
        folder: Of the model, a complete one or adapters.
        template_folder: Folder whose chat template and tokenizer are used: that of the fine-tuned model, for its base
            as well.
        metadata: Of the fine-tuned model.
        kept: File for the answers, of a name that stands for all that they depend on.
        progress: Called with done, total and a message.

    Raises DataError for a folder that does not open, or rows that the model cannot take.
    """
    if kept is not None and kept.is_file():
        return Answered(**json.loads(kept.read_text(encoding="utf-8")))
    from raypath.components.inference.generation.evaluation.likelihood import score_answers
    from raypath.components.inference.generation.selection.opening import fastest
    from raypath.components.inference.text_to_text.opening import open_transformers
    from raypath.components.models.chat_template.source_target import load_template
    from raypath.components.models.process import configure_process

    def tell(message: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(done, total, message) if progress is not None else None

    configure_process(threads)
    template = load_template(template_folder)
    scorer = open_transformers(folder)
    prompts = [template.encode_prompt(each.conversation.prompt.messages, each.conversation.tools) for each in rows]
    settings = replace(settings, stop=settings.stop | frozenset(template.end_ids))
    prompted = any(each.turns for each in rows)
    engine: Any = fastest(scorer, threads, len(prompts) * settings.max_new_tokens) if prompted else scorer
    start = time.monotonic()
    generated = engine.generate(prompts, settings, tell("rows answered")) if prompted else []
    seconds = time.monotonic() - start
    if engine is not scorer:
        engine.close()
    likelihood = score_answers(
        scorer.model, template, metadata, [each.conversation for each in rows], tell("rows scored")
    )
    found = Answered(
        [each.text for each in generated] if prompted else [""] * len(rows),
        [each.finish is Finish.STOP for each in generated] if prompted else [False] * len(rows),
        likelihood.tolist(),
        sum(len(each.ids) for each in generated),
        seconds,
    )
    if kept is not None:
        write_atomically(kept, json.dumps(asdict(found), ensure_ascii=False))
    return found
