"""Model card (README.md) in the form of the Hugging Face Hub: what it is, base, license, data, metrics and use; no
row's text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from huggingface_hub import EvalResult, ModelCardData

from raypath.components.cards.data_card import CATEGORIES
from raypath.components.cards.facts import ModelFacts
from raypath.components.models.base_models import original_base

LIBRARIES = {"hf": "transformers", "peft": "peft", "gguf": "gguf", "onnx": "onnx", "encoder": "transformers"}


def model_card(facts: ModelFacts, form: str, what: str, use: str, more: Sequence[str] = ()) -> str:
    """Return the card as Markdown, with the fields of the Hugging Face Hub on top.

    Args:
        form: Format of the export: hf, peft, gguf, onnx or encoder.
        what: Sentence about the files.
        use: Section with the code or the commands that open it.
        more: Sections before it, with their headings.
    """
    parts = [_front(facts, form), f"# {facts.title}", what, _origin(facts)]
    if facts.metrics:
        parts += ["## Metrics", _measured(facts), _table(facts.metrics)]
    parts += [*more, "## Use", use]
    return "\n\n".join(parts) + "\n"


def _front(facts: ModelFacts, form: str) -> str:
    category = CATEGORIES.get(facts.task)
    results = [
        EvalResult(category or "other", facts.data, facts.data, name, value, metric_name=name)
        for name, value in _overall(facts.metrics)
    ]
    data = ModelCardData(
        library_name=LIBRARIES[form],
        tags=["raypath", *([facts.task] if facts.task else [])],
        pipeline_tag=category,
        base_model=original_base(facts.base.removeprefix("hf://")).partition("@")[0]
        if facts.base.startswith("hf://")
        else None,
        license=facts.license.lower() or None,
        # The Hub lists results of a named data set.
        model_name=facts.title if results and facts.data else None,
        eval_results=results if facts.data else None,
    )
    return f"---\n{data.to_yaml().strip()}\n---"


def _origin(facts: ModelFacts) -> str:
    lines = [f"- Base: {_code(facts.public_base) if facts.base else 'not recorded'}"]
    lines.append(f"- License of the base: {facts.license or 'see the base; it is not recorded here'}")
    if facts.task:
        lines.append(f"- Task: {facts.task}")
    if facts.privacy:
        lines.append(f"- Differential privacy: {facts.privacy}")
    return "\n".join(lines)


def _measured(facts: ModelFacts) -> str:
    return f"On the test split{f' ({facts.data})' if facts.data else ''}."


def _table(metrics: Mapping[str, float]) -> str:
    """Return the metrics over all rows, with their 95% intervals; those of single classes are left out."""
    lines = ["| metric | value | 95% interval |", "| --- | --- | --- |"]
    for name, value in _overall(metrics):
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
        lines.append(f"| {name} | {value:.4g} | {interval} |")
    return "\n".join(lines)


def _overall(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    return [
        (name, value) for name, value in metrics.items() if "/" not in name and not name.endswith(("_low", "_high"))
    ]


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"
