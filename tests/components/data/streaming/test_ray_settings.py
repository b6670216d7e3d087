"""Settings of Ray Data while rows are streamed, and those of the caller afterwards."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from raypath.components import DataError
from raypath.components.data.streaming.stream import ray_data_settings


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
def test_the_callers_settings_are_back_after_an_error_too() -> None:
    from ray.data import DataContext

    settings, logger = DataContext.get_current(), logging.getLogger("ray.data")

    def now() -> tuple[Any, ...]:
        options = settings.execution_options
        shown = (settings.enable_progress_bars, settings.print_on_execution_start, logger.level)
        return options.preserve_order, options.resource_limits.cpu, settings.target_max_block_size, *shown

    before, options = now(), settings.execution_options
    inside: list[tuple[Any, ...]] = []

    def fail() -> None:
        inside.append(now())
        raise DataError("-1 rows", fix="count upwards")

    with pytest.raises(DataError), ray_data_settings(3):
        fail()
    assert inside == [(True, 3.0, 8 << 20, False, False, logging.CRITICAL)]
    assert now() == before
    assert settings.execution_options is options
    with ray_data_settings(0, ordered=False):
        assert now()[:2] == (False, 1.0)
    assert now() == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
def test_work_stays_on_the_steps_node_unless_it_may_run_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.data import DataContext

    settings, here = DataContext.get_current(), {"ray.io/node-id": "here"}
    monkeypatch.setattr(settings.execution_options, "label_selector", here)
    for anywhere, wanted in ((False, here), (True, {})):
        with ray_data_settings(1, anywhere=anywhere):
            assert settings.execution_options.label_selector == wanted
        assert settings.execution_options.label_selector == here
