"""Sections of a model card on data, training and limits, from the steps that made the model; no row's text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypath.components.cards.data_facts import DataFacts

WORSE = "worse"
SETTINGS = ("method", "epochs", "lr", "batch_tokens", "frozen_layers", "max_length", "lora", "precision")
"""Settings of a training that a reader of a card looks for; others are in the run."""


def data_section(facts: DataFacts) -> str:
    """Return the section on the rows; the data card beside it has the rest."""
    splits = ", ".join(f"{name} {rows:,}" for name, rows in facts.splits.items())
    inputs = ", ".join(f"{each.name} ({each.kind})" for each in facts.columns if each.role == "input")
    personal = _personal(facts)
    return f"## Data\n\n{facts.rows:,} rows of `{facts.source}`: {splits}. Inputs: {inputs}. {personal}"


def training_section(settings: Mapping[str, Any], seconds: float, made: str) -> str:
    """Return the section on the training. settings: those given, replaced by those that were chosen."""
    lines = [
        f"- {name}: {settings[name]}"
        for name in SETTINGS
        if settings.get(name) not in (None, "", "auto", 0) or name == "seed"
    ]
    return "\n".join([f"## Training\n\nFine-tuned on {made} in {seconds:,.0f} s.", "", *lines]).rstrip()


def limits_section(report: Mapping[str, Any], facts: DataFacts | None) -> str:
    """Return the section on limits. report: `report.json` of an evaluation; {} without one."""
    lines = [_slice(each, report.get("slice_metric", "")) for each in report.get("slices", []) if each.get(WORSE)]
    lines += _rare(report)
    if facts is not None and facts.report is not None:
        lines += [f"- Data: {each.text}" for each in facts.report.findings if each.severity != "note"]
        lines += _languages(facts)
    if not lines:
        lines = ["- No part of the test rows is significantly worse than the rest."]
    return "\n".join(
        ["## Limits", "", "Measured on rows like those above; on others it may be worse. Known:", "", *lines]
    )


def _personal(facts: DataFacts) -> str:
    if facts.redaction is not None:
        return "Personal data in the inputs was replaced before the training, and is in service."
    if facts.report is None:
        return "Personal data was not searched for."
    kinds = facts.report.personal_data
    counts = ", ".join(f"{kind} in {rows:,} rows" for kind, rows in kinds.items())
    return f"Personal data found by patterns: {counts or 'none'}."


def _slice(found: Mapping[str, Any], metric: str) -> str:
    score = found["score"]["value"]
    where = f"{found['column']} {found['value']} ({found['rows']} rows)"
    return f"- {where}: {metric} {score:.4g}, against {found['others']:.4g} elsewhere"


def _rare(report: Mapping[str, Any]) -> list[str]:
    few = [str(each["label"]) for each in report.get("classes", []) if each["rows"] < 10]
    if not few:
        return []
    return [f"- Classes with fewer than 10 test rows, whose metrics tell little: {', '.join(few[:20])}"]


def _languages(facts: DataFacts) -> list[str]:
    found = facts.report.languages if facts.report else {}
    known = [code for code, rows in found.items() if len(code) in (2, 3) and rows * 100 >= facts.rows]
    return [f"- Languages of the data: {', '.join(known)}; others were not tested"] if known else []
