"""Batches of transformers whose rows join and leave between steps: scheduling, caches, sampling."""
