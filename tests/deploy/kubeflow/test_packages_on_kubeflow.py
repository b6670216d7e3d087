"""A team's own packages as a pipeline: rendered from their folder, run container by container."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.kubeflow.kubeflow_local import local_runner, told
from tests.k8s.manifests import IMAGE
from tests.user_packages import WORKFLOW, write_packages

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("kfp") is None, reason="needs the extra `kubeflow`"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_packages_of_a_team_run_in_its_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team, file = tmp_path / "team", tmp_path / "pipeline.yaml"
    write_packages(team)
    place = {"image": IMAGE, "store": str(tmp_path / "store"), "claim": "shared", "tracking": ""}
    settings = [word for key, value in place.items() for word in ("-s", f"kubeflow.{key}={value}")]
    command = [sys.executable, "-m", "raypath.deploy.cli.main", "render", WORKFLOW, "--on", "kubeflow", *settings]
    search = os.environ.get("PYTHONPATH", "")
    env = {**os.environ, "RAYPATH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*command, "-o", str(file)], cwd=team, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    # As in the image, where a path file makes /app importable: it comes last.
    monkeypatch.setenv("PYTHONPATH", f"{search}{os.pathsep}{team}" if search else str(team))
    with local_runner(file.read_text(), tmp_path) as run:
        assert run(first__more=2) == {"count": False, "count-2": False}
        assert Path(told(tmp_path, "count-2", "output")["place"], "words.txt").read_text() == "tea tea tea tea"
        assert run(first__more=2) == {"count": True, "count-2": True}
        (team / "components_acme" / "words.py").write_text('WORD = "mug"\n')
        assert run(first__more=2) == {"count": False, "count-2": False}, "the code of the packages counts"
    assert not list(team.rglob("*.executed"))
