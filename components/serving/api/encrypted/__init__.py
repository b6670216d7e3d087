"""Predictions on encrypted features."""
