"""The Kubeflow Pipelines launcher."""
