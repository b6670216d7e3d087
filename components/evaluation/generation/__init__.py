"""Metrics of generated text, one file a family; each is a function of row weights, as in `outcomes.py`."""
