"""Settings that fit a budget of time: fewer passes, then fewer trained layers, then the head alone."""

from __future__ import annotations

from collections.abc import Iterator

from raypath.components.configuration.facts import DataFacts
from raypath.components.configuration.rules import Choice
from raypath.components.configuration.speed import Speed
from raypath.components.core.artifacts import Values
from raypath.components.core.params import AUTO
from raypath.components.training.params import FinetuneParams, ResolvedParams

SPARE = 0.9
"""Share of the budget that is planned: a machine is not always as fast as in the seconds of the measurement."""
HEAD_EPOCHS = 20
"""Passes of a head over stored features, which take hardly any time."""


def training_share(frozen: int, layers: int) -> float:
    """Time of a training step with `frozen` of `layers` layers frozen, as a share of that with none frozen.

    A backward pass takes twice the time of a forward pass, and ends at the lowest trained layer.
    """
    return 1.0 if layers < 1 or frozen <= 0 else (layers + 2 * max(0, layers - frozen)) / (3 * layers)


def fit_budget(params: FinetuneParams, resolved: ResolvedParams, facts: DataFacts, speed: Speed) -> Choice:
    """Return the values that change so that training takes `params.minutes` at most; none if it does so as it is.

    resolved: settings that follow from the data, at which `speed` was measured. Settings that are not "auto" in
    `params` are kept, also if training then takes longer.
    """
    seconds = 60.0 * SPARE * (params.minutes or 0)
    if params.minutes is None or speed.seconds(facts.rows, facts.valid_rows, resolved.epochs) <= seconds:
        return Choice()
    measured = training_share(resolved.frozen_layers, facts.layers)
    for epochs, frozen in _candidates(params, resolved, facts.layers):
        share = training_share(frozen, facts.layers) / measured
        if params.minutes is None or speed.seconds(facts.rows, facts.valid_rows, epochs, share) <= seconds:
            changed: Values = {"epochs": epochs, "frozen_layers": frozen}
            return _choice(params, changed, f"to fit finetune.minutes={params.minutes:g}")
    if params.method == AUTO:
        return _choice(params, {"method": "head", "epochs": HEAD_EPOCHS}, "only a head fits finetune.minutes")
    fastest: Values = {"epochs": 1, "frozen_layers": max(resolved.frozen_layers, facts.layers - 1)}
    return _choice(params, fastest, f"takes longer than finetune.minutes={params.minutes:g}")


def _choice(params: FinetuneParams, values: Values, reason: str) -> Choice:
    return Choice({name: value for name, value in values.items() if getattr(params, name) == AUTO}, (reason,))


def _candidates(params: FinetuneParams, resolved: ResolvedParams, layers: int) -> Iterator[tuple[int, int]]:
    """Yield (epochs, frozen layers), best first: three passes over more frozen layers beat one over all."""
    most = resolved.epochs
    freezes = [resolved.frozen_layers]
    if params.frozen_layers == AUTO:
        freezes += [n for n in (layers // 3, layers // 2, 2 * layers // 3) if n > resolved.frozen_layers]
    passes = [most]
    if params.epochs == AUTO:
        passes = list(range(most, 0, -1))
    enough = min(3, most)
    for frozen in freezes:
        yield from ((epochs, frozen) for epochs in passes if epochs >= enough)
    for epochs in (each for each in passes if each < enough):
        yield from ((epochs, frozen) for frozen in freezes)
