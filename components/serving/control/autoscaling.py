"""Autoscaling of language models by the tokens that wait.

Requests of language models differ by a factor of a thousand in their work, so that their number says little. Ray Serve
runs this policy in its controller, which has the source of this module and nothing else of Raypath.
"""

from __future__ import annotations

from typing import Any

METRIC = "waiting_tokens"
"""Name of the metric that replicas report to Ray Serve: tokens of prompts that are not read, and those that responses
in progress are expected to have yet."""


class WaitingTokensPolicy:
    """Policy of Ray Serve: replicas for the tokens that wait at all of them. target: tokens for each replica."""

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """Return the wanted number of replicas, which Ray Serve rounds, delays and bounds, and no state."""
        reported = (context.aggregated_metrics or {}).get(METRIC, {})
        # Ray Serve keeps what a replica that has stopped reported last.
        tokens = sum(value for replica, value in reported.items() if replica in context.running_replicas)
        wanted = tokens / self.target
        # A request that waits at the proxy, or is being read, has no tokens yet.
        return (max(wanted, 1.0) if context.total_num_requests else wanted), {}
