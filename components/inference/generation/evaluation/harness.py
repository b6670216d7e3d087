"""Tasks of lm-evaluation-harness (extra `lm-eval`) on a model: their metrics by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.uris import local_path
from raypath.components.evaluation.generation.params import check_installed
from raypath.components.models.language_models import TEXT_TO_TEXT

PREFIX = "harness/"
"""Prefix of the metrics: harness/TASK/METRIC, and its standard error with `_stderr` at the end."""


@dataclass(frozen=True)
class HarnessTasks:
    """Tasks to run.

    Args:
        folder: With YAML files of tasks; "" for lm_eval's own only.
        rows: Most rows of a task; 0 for all.
        chat: Requests are user messages, rendered with the chat template.
    """

    names: Sequence[str]
    folder: str = ""
    rows: int = 0
    chat: bool = False

    def check(self, task: str) -> None:
        """Raise ParamsError without lm_eval, for a task that it does not have, and for an encoder-decoder.

        task: Raypath's name of the model's task.
        """
        check_installed()
        if task == TEXT_TO_TEXT:
            raise ParamsError("evaluate.harness needs a causal language model", fix="leave it out")
        if self.folder and not local_path(self.folder).is_dir():
            what = f"evaluate.harness_tasks={self.folder} is not a folder"
            raise ParamsError(what, fix="name one with YAML files of tasks")
        known = set(self._index.all_tasks)
        if unknown := [name for name in self.names if name not in known]:
            fix = "lm_eval ls tasks lists them; evaluate.harness_tasks adds a folder of your own"
            raise ParamsError(f"lm_eval has no task {unknown[0]}", fix=fix)

    @cached_property
    def _index(self) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=str(local_path(self.folder)) if self.folder else None)

    def run(self, folder: Path, template_folder: Path, threads: int = 0, seed: int = 0) -> dict[str, float]:
        """Run the tasks on the model of a folder, or an adapter and its base; returns finite metrics by name.

        Raises DataError for a task whose data cannot be loaded.
        """
        from lm_eval import simple_evaluate

        from raypath.components.inference.generation.evaluation.harness_model import HarnessModel
        from raypath.components.inference.generation.transformers_engine import TransformersEngine
        from raypath.components.models.process import configure_process

        configure_process(threads)
        try:
            found = simple_evaluate(
                model=HarnessModel(TransformersEngine.open(folder), template_folder),
                tasks=list(self.names),
                limit=self.rows or None,
                bootstrap_iters=1_000,
                log_samples=False,
                apply_chat_template=self.chat,
                task_manager=self._index,
                **dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), seed),
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            what = f"a task of evaluate.harness cannot be run ({reason})"
            raise DataError(what, fix="download its data first, or name tasks with local files") from None
        return flat_metrics(found["results"] if found else {})


def flat_metrics(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the numbers of lm_eval's results as harness/TASK/METRIC; filters other than the first are in the name."""
    found: dict[str, float] = {}
    for task, values in results.items():
        for name, value in values.items():
            metric, _, kind = name.partition(",")
            if isinstance(value, bool | str) or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            if kind:
                found[f"{PREFIX}{task}/{metric}" + ("" if kind == "none" else f".{kind}")] = float(value)
    return found
