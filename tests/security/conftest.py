"""The MLflow server of the tests of components."""

from tests.components.conftest import mlflow_uri

__all__ = ["mlflow_uri"]
