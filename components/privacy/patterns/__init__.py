"""Patterns of structured items, by kind. A pattern yields the ranges of a plain text (`privacy/plain.py`)."""
