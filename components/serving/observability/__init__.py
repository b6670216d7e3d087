"""Metrics, traces and prediction logs of an endpoint."""
