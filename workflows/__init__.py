"""Workflows: each file composes components to a graph of steps, and is named for its workflow."""
