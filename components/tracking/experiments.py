"""MLflow experiments, one a workflow, and what MLflow's pages show of one at first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

KIND = ("mlflow.experimentKind", "custom_model_development")
"""Tag by which MLflow opens an experiment on its training runs and not on traces of language models."""
VIEW = "raypath"
"""Id of the saved view with the columns that matter, in links as `viewStateShareKey`."""
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_COLUMNS = ("Dataset", "Models", "Source", "Version")
"""Columns of a view before its metrics; MLflow calls the commit "Version"."""


def experiment_id(client: Any, name: str) -> str:
    """Return the id of an experiment; it is created, or restored when it was deleted.

    Raises OSError if it can neither be created nor found.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, tags=dict([KIND])))
        except MlflowException:
            # Another process created it meanwhile.
            found = client.get_experiment_by_name(name)
    if found is None:
        raise OSError(f"experiment {name} cannot be created")
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if KIND[0] not in found.tags:
        client.set_experiment_tag(found.experiment_id, *KIND)
    return str(found.experiment_id)


def save_view(client: Any, experiment: str, metrics: Sequence[str]) -> None:
    """Save a view of the list of runs with columns for these metrics, unless there is one (MLflow 3.17's format)."""
    if _VIEW_TAG in client.get_experiment(experiment).tags:
        return
    columns = [f"attributes.`{name}`" for name in _COLUMNS] + [f"metrics.`{name}`" for name in metrics]
    view = {"name": "Raypath", "createdAt": 0, "updatedAt": 0, "state": json.dumps({"selectedColumns": columns})}
    client.set_experiment_tag(experiment, _VIEW_TAG, json.dumps(view))


def runs_path(experiment: str) -> str:
    """Return the path of the page with an experiment's runs in that view, to append to MLflow's URL."""
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}"
