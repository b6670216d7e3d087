"""A compiled pipeline, run container by container in processes of this machine by kfp's own local runner."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raypath.deploy.kubeflow import pipeline
from tests.workflows.conftest import ROOT


@contextmanager
def local_runner(text: str, folder: Path) -> Iterator[Callable[..., dict[str, bool]]]:
    """A function that runs the pipeline with these arguments and returns which steps were reused."""
    pipeline.kfp()
    from kfp import components, local
    from kfp.local.config import LocalExecutionConfig

    root = folder / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the current folder is searched last, and a package of samples installs a module `tests`
        patch.setenv("RAYPATH_HOME", str(folder / "pod"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
        compiled: Any = components.load_component_from_text(text)

        def run(**arguments: Any) -> dict[str, bool]:
            before = set(root.glob("*"))
            compiled(**arguments)
            [made] = set(root.glob("*")) - before
            return {path.parent.name: json.loads(path.read_text()) for path in made.glob("*/reused")}

        yield run
        LocalExecutionConfig.instance = None


def told(folder: Path, step: str, output: str) -> dict[str, Any]:
    """The metadata of an output of a step, in the latest run."""
    root = max((folder / "root").glob("*"), key=lambda path: path.name)
    found = json.loads((root / step / "executor_output.json").read_text())["artifacts"][output]["artifacts"][0]
    return dict(found["metadata"])
