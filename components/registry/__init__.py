"""The MLflow model registry: client, aliases, local cache, publishing."""
