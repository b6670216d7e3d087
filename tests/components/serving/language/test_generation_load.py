"""Estimated delay and waiting tokens of a language model, and the autoscaling that follows them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.serving.control.autoscaling import METRIC, WaitingTokensPolicy
from raypath.components.serving.control.ray_options import deployment_options
from raypath.components.serving.model_versions import Pace
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica.language.load import GenerationLoad, PendingResponse


class Engine:
    """Responses that get tokens by a clock: alone 100 a second, together at most 400; prompts of 2,000 a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.load = GenerationLoad(lambda: self.now)
        self.load.calibrate(Pace(prompt=2_000.0, response=100.0))

    def start(self, number: int, prompt: int = 100, limit: int = 256) -> list[PendingResponse]:
        return [self.load.start(prompt, limit) for _ in range(number)]

    def run(self, pending: list[PendingResponse], seconds: float) -> None:
        end = self.now + seconds
        self.now += sum(each.prompt for each in pending if not each.is_read) / 2_000
        while self.now < end:
            self.now += len(pending) / min(400, 100 * len(pending))
            for each in pending:
                self.load.count(each, 1)

    def end(self, pending: list[PendingResponse]) -> None:
        for each in pending:
            self.load.end(each)


def test_an_idle_replica_delays_nobody_and_few_responses_hardly() -> None:
    engine = Engine()
    assert engine.load.wait() == 0.0
    engine.run(pending := engine.start(3), 3.0)
    assert engine.load.wait() == pytest.approx(0.0, abs=0.2), "four at a time are as fast as one"
    engine.end(pending)
    assert (engine.load.wait(), engine.load.open, engine.load.tokens) == (0.0, 0, 0)


def test_the_delay_is_that_of_sharing_the_engine() -> None:
    engine = Engine()
    engine.run(first := engine.start(40), 20.0)
    engine.end(first)
    tokens = engine.load.response_tokens
    assert tokens == pytest.approx(20.0 * 400 / 40, rel=0.1)
    engine.run(engine.start(40), 3.0)
    # 41 responses share 400 tokens a second, and one alone has 100.
    assert engine.load.wait() == pytest.approx(tokens * (41 / 400 - 1 / 100), rel=0.1)
    assert engine.load.wait(limit=1) == pytest.approx(41 / 400 - 1 / 100, rel=0.1), "a short response waits less"


def test_prompts_that_are_not_read_delay_by_what_reading_takes() -> None:
    engine = Engine()
    engine.start(1, prompt=10_000)
    assert engine.load.wait(1) == pytest.approx(5.0, rel=0.01)


def test_prompts_from_the_cache_take_no_time() -> None:
    engine = Engine()
    for _ in range(20):
        [cached] = engine.start(1, prompt=1_000)
        engine.load.count(cached, 1, cached=1_000)
        engine.load.end(cached)
    engine.start(1, prompt=10_000)
    assert engine.load.wait(1) < 0.1


def test_long_prompts_do_not_look_like_slow_tokens() -> None:
    """A window that spends half its time with prompts has half the tokens: the speed is that of the other half."""
    engine = Engine()
    for _ in range(30):
        pending = engine.start(4, prompt=250)
        engine.run(pending, 1.0)
        engine.end(pending)
    engine.run(engine.start(4, prompt=1, limit=100), 0.1)
    assert engine.load.wait(100) < 0.3


def test_a_burst_is_not_rejected_for_the_speed_of_one_response() -> None:
    engine = Engine()
    engine.run(one := engine.start(1), 3.0)
    engine.end(one)
    engine.start(15, prompt=10)
    assert engine.load.wait() < 0.5, "an engine is expected to answer sixteen as fast as one until it was measured"
    engine.start(200, prompt=10)
    assert engine.load.wait() > 20.0


def test_waiting_tokens_are_prompts_and_what_responses_are_expected_to_have() -> None:
    engine = Engine()
    [pending] = engine.start(1, prompt=100, limit=50)
    assert engine.load.tokens == 150
    engine.load.count(pending, 10)
    assert (engine.load.tokens, engine.load.waiting(pending)) == (40, 40)
    engine.end([pending])
    [other] = engine.start(1, prompt=5, limit=1_000)
    assert engine.load.tokens == 5 + 10, "the last response had ten"
    engine.load.count(other, 30)
    assert engine.load.tokens == 1, "longer than expected: one more at least"


def _context(reported: dict[str, float], requests: float = 1.0) -> Any:
    return SimpleNamespace(
        aggregated_metrics={METRIC: reported}, running_replicas=["a", "b"], total_num_requests=requests
    )


def test_replicas_follow_the_tokens_that_wait() -> None:
    policy = WaitingTokensPolicy(target=1_000.0)
    assert policy(_context({"a": 1_500.0, "b": 1_000.0})) == (2.5, {})
    assert policy(_context({"a": 500.0, "gone": 9_000.0}))[0] == 1.0, "what a stopped replica reported does not count"
    assert policy(_context({"a": 0.0}, requests=0.0))[0] == 0.0
    assert policy(_context({}, requests=1.0))[0] == 1.0, "a request that is being read keeps a replica"


def test_a_language_model_scales_by_tokens_and_drains_as_long_as_a_stream_may_take() -> None:
    params = ServeParams(replicas=0, max_replicas=3, target_tokens=2_000.0, request_timeout=300.0)
    options = deployment_options(params, {}, by_tokens=True)
    scaling: Any = options["autoscaling_config"]
    assert scaling["policy"]["policy_kwargs"] == {"target": 2_000.0}
    assert options["graceful_shutdown_timeout_s"] > 300.0
    plain: Any = deployment_options(params, {})["autoscaling_config"]
    assert "policy" not in plain
