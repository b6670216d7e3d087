"""Launcher for Kubeflow Pipelines."""
