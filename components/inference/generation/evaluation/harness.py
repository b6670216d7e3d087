"""Tasks of lm-evaluation-harness (extra `lm-eval`) on a model: their metrics by name."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.uris import local_path

PREFIX = "harness/"
"""Prefix of the metrics: harness/TASK/METRIC, and its standard error with `_stderr` at the end."""


def check_installed() -> None:
    """Raise ParamsError without lm_eval."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ParamsError("evaluate.harness needs lm_eval", fix="pip install 'raypath[lm-eval]'")


def check_tasks(names: Sequence[str], folder: str = "") -> Any:
    """Return lm_eval's index of tasks. Raises ParamsError for a task that it does not have, or without lm_eval."""
    check_installed()
    from lm_eval.tasks import TaskManager

    if folder and not local_path(folder).is_dir():
        raise ParamsError(f"evaluate.harness_tasks={folder} is not a folder", fix="name one with YAML files of tasks")
    index = TaskManager(include_path=str(local_path(folder)) if folder else None)
    known = set(index.all_tasks)
    if unknown := [name for name in names if name not in known]:
        fix = "lm_eval ls tasks lists them; evaluate.harness_tasks adds a folder of your own"
        raise ParamsError(f"lm_eval has no task {unknown[0]}", fix=fix)
    return index


def run_tasks(
    folder: Path,
    template_folder: Path,
    index: Any,
    names: Sequence[str],
    *,
    rows: int = 0,
    chat: bool = False,
    threads: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Run tasks on the model of a folder, or an adapter and its base; returns finite metrics by name.

    Args:
        index: From `check_tasks`.
        rows: Most rows of a task; 0 for all.
        chat: Requests are user messages, rendered with the chat template.

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
            tasks=list(names),
            limit=rows or None,
            bootstrap_iters=1_000,
            log_samples=False,
            apply_chat_template=chat,
            task_manager=index,
            **dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), seed),
        )
    except (OSError, ConnectionError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"the data of a task in evaluate.harness cannot be loaded ({reason})"
        raise DataError(what, fix="download it first, or name tasks with local files") from None
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
