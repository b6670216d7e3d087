"""Replicas of language models: a streaming engine for each version."""
