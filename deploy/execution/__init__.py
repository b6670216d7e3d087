"""Execution of workflow graphs: runner, cache keys, run history."""
