"""Evaluation: metrics, bootstrap intervals, thresholds, plots."""
