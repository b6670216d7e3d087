"""Interface of lm-evaluation-harness to a language model of Raypath; imported only where `lm_eval` is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM

from raypath.components.inference.generation.evaluation.continuations import ContinuationScorer
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.models.chat_template import ChatTemplate


class HarnessModel(LM):  # type: ignore[misc]
    """Language model whose continuations are scored, and that generates.

    engine: of the model. template_folder: folder whose chat template is used for tasks in the form of a chat.
    """

    def __init__(self, engine: TransformersEngine, template_folder: Path) -> None:
        super().__init__()
        self._scorer = ContinuationScorer(engine)
        self._template = ChatTemplate.load(template_folder)

    @property
    def tokenizer_name(self) -> str:
        """Name by which lm_eval tells requests of several tokenizers apart."""
        return self._template.name

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the name of the template; its source is not needed."""
        return self._template.name

    def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
        """Render messages as they were for training."""
        return self._template.render(chat_history, add_generation_prompt=add_generation_prompt)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation in nats, and True if greedy decoding gives it."""
        return self._scorer.continuations([each.args for each in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-probability of each text, in windows of the model's context."""
        return self._scorer.texts([each.args[0] for each in requests])

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return a response to each context, which ends before the first of its stop strings."""
        return self._scorer.responses([each.args for each in requests])
