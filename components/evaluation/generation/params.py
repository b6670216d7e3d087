"""Settings of `evaluate_generation`, and what can be checked of them before a model is trained."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import NonNegative, Params, Positive, Source
from raypath.components.core.uris import check_no_secret

if TYPE_CHECKING:
    from raypath.components.evaluation.generation.judge import Judge


def _check_judge(url: str) -> str:
    check_no_secret("judge", url)
    return url


def _check_metrics(names: tuple[str, ...]) -> tuple[str, ...]:
    if names:
        from raypath.components.evaluation.generation import catalog

        catalog.check_names(names)
    return names


class EvaluateGenerationParams(Params):
    """Settings of `evaluate_generation`."""

    metrics: Annotated[tuple[str, ...], AfterValidator(_check_metrics)] = ()
    """Metrics of the responses, the main one first, such as rouge_l,chrf. By default they are chosen by the
    references: JSON, one of few responses, short or long ones."""
    rows: NonNegative = 200
    """Rows of the test split that are evaluated, spread evenly; 0 for all."""
    max_new_tokens: Positive = 128
    """Maximum length of a response in tokens."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Temperature of sampling; 0 is greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: draw from the fewest tokens whose probabilities reach this sum; needs a temperature."""
    before: bool = True
    """Also evaluate the model that the training started from."""
    json_schema: Source = ""
    """JSON schema that responses are validated against: a file, or JSON text."""
    canaries: tuple[str, ...] = ()
    """Canaries: texts planted in training responses, which no generated response should contain."""
    judge: Annotated[str, AfterValidator(_check_judge)] = ""
    """URL of an OpenAI-compatible endpoint that judges which of two responses is better, such as https://HOST/v1. It
    receives prompts, references and responses. The environment variable RAYPATH_JUDGE_KEY has its API key."""
    judge_model: str = ""
    """Model of that endpoint; without a name, the first that it lists."""
    judge_rows: NonNegative = 100
    """Rows that are judged, two requests each; 0 for all evaluated rows."""
    harness: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness that the model, and its base with `before`, are run on, such as arc_easy,gsm8k;
    needs the extra lm-eval. Their data is downloaded from the Hugging Face hub, unless a task names local files."""
    harness_tasks: Source = ""
    """Folder with YAML files of tasks of your own for lm-evaluation-harness."""
    harness_rows: NonNegative = 0
    """Most rows of each of these tasks; 0 for all."""
    harness_chat: bool = False
    """Render the requests of these tasks as user messages with the chat template."""
    resamples: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Bootstrap resamples of the 95% confidence intervals; 0 disables them."""
    plots: bool = True
    """Plot the lengths of the responses."""
    texts: bool = False
    """Show texts in the report that is logged to MLflow as well. Without it only the one in the step's own files has
    them."""


def check_settings(params: EvaluateGenerationParams, here: bool = True) -> None:
    """Raise ParamsError or Unavailable for settings with which the step would fail, whatever the data.

    here: the step runs on this machine: the judge has to respond, lm-evaluation-harness has to be installed.
    """
    from raypath.components.evaluation.generation import leaks
    from raypath.components.evaluation.generation.structure import load_schema

    leaks.check_canaries(params.canaries)
    if params.json_schema:
        load_schema(params.json_schema)
    judge = open_judge(params)
    if judge is not None and here:
        judge.check()
    if params.harness and here:
        check_installed()


def open_judge(params: EvaluateGenerationParams) -> Judge | None:
    """Return the judge that the settings name, before its first request. Raises ParamsError for wrong settings."""
    from raypath.components.evaluation.generation.judge import Judge

    if not params.judge:
        return None
    if not params.before:
        raise ParamsError("setting judge compares with the base, which before=false leaves out", fix="remove one")
    return Judge(params.judge, params.judge_model)


def check_installed() -> None:
    """Raise ParamsError without lm_eval."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ParamsError("evaluate.harness needs lm_eval", fix="pip install 'raypath[lm-eval]'")
