"""Base models of the Hub at a fixed revision, from a cache that another process has filled."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.tiny import tiny_bert

OPEN = """
import sys
from raypath.components.core.errors import DataError
from raypath.components.models.base_models import base_folder
for uri in sys.argv[1:]:
    try:
        print(base_folder(uri).name)
    except DataError as error:
        print(error)
"""
FIRST, SECOND = "1" * 40, "2" * 40
FOUND = {
    "hf://team/model@v1": FIRST,
    "hf://team/model": SECOND,
    f"hf://team/model@{FIRST}": FIRST,
    "hf://team/model@v3": "base model hf://team/model@v3 cannot be downloaded",
    "hf://a/b/c@v1": "hf://a/b/c@v1 is no name of a repository",
}


def test_a_revision_selects_its_snapshot(tmp_path: Path) -> None:
    cached = tmp_path / "models--team--model"
    (cached / "refs").mkdir(parents=True)
    tiny_bert(cached / "snapshots" / FIRST)
    shutil.copytree(cached / "snapshots" / FIRST, cached / "snapshots" / SECOND)
    (cached / "refs" / "v1").write_text(FIRST)
    (cached / "refs" / "main").write_text(SECOND)
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", OPEN, *FOUND], env=env, capture_output=True, text=True, check=True)
    for line, found in zip(done.stdout.splitlines(), FOUND.values(), strict=True):
        assert line.startswith(found)
