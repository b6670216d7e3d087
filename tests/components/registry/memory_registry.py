"""A model registry in memory, with the calls of MLflow's client that Raypath makes: for messages and order.

What MLflow itself does is tested with its server (test_register.py).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

URI = "http://127.0.0.1:9"
"""Where nothing listens."""


class MemoryRegistry:
    """Versions by number of each model, aliases, and the calls that changed something."""

    def __init__(self, **models: int) -> None:
        self.models: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.runs: dict[str, Any] = {}
        for name, count in models.items():
            versions = {n: _version(name, n) for n in range(1, count + 1)}
            self.models[name] = SimpleNamespace(name=name, aliases={}, versions=versions)

    def aliases(self, name: str = "shop") -> dict[str, str]:
        found: dict[str, str] = self.models[name].aliases
        return found

    def tags(self, name: str, version: int) -> dict[str, str]:
        found: dict[str, str] = self.models[name].versions[version].tags
        return found

    def get_registered_model(self, name: str) -> Any:
        return self._known(self.models.get(name))

    def get_model_version(self, name: str, version: str) -> Any:
        return self._known(self._known(self.models.get(name)).versions.get(int(version)))

    def search_registered_models(self, filter_string: str | None = None, page_token: str | None = None) -> Any:
        return PagedList(list(self.models.values()), None)

    def search_model_versions(self, filter_string: str | None = None, page_token: str | None = None) -> Any:
        name = (filter_string or "").removeprefix("name = '").removesuffix("'")
        return PagedList(list(self.models[name].versions.values()) if name in self.models else [], None)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.calls.append(("alias", alias, version))
        self.models[name].aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.calls.append(("no alias", alias))
        del self.models[name].aliases[alias]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.calls.append(("tag", version, key, value))
        self.tags(name, int(version))[key] = value

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        self.calls.append(("no tag", version, key))
        del self.tags(name, int(version))[key]

    def update_model_version(self, name: str, version: str, description: str) -> None:
        self.models[name].versions[int(version)].description = description

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(
            experiment_id=f"id of {name}", lifecycle_stage="active", tags={"mlflow.experimentKind": ""}
        )

    def search_runs(self, experiments: list[str], filter_string: str, max_results: int) -> list[Any]:
        self.calls.append(("search", experiments, filter_string, max_results))
        return [
            run for run in self.runs.values() if filter_string == f"tags.`raypath.id` = '{run.data.tags['raypath.id']}'"
        ]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> Any:
        self.calls.append(("run", experiment, run_name, tags))
        run = f"run-{len(self.runs)}"
        self.runs[run] = SimpleNamespace(info=SimpleNamespace(run_id=run), data=SimpleNamespace(tags=dict(tags)))
        return self.runs[run]

    def get_run(self, run: str) -> Any:
        return self.runs[run]

    @staticmethod
    def _known(found: Any) -> Any:
        if found is None:
            error = MlflowException("not there")
            error.error_code = "RESOURCE_DOES_NOT_EXIST"
            raise error
        return found


def _version(name: str, number: int) -> Any:
    facts: dict[str, Any] = {"tags": {}, "description": "", "creation_timestamp": 1_500 * number}
    return SimpleNamespace(name=name, version=str(number), source=f"models:/m-{number}", **facts)
