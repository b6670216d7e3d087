"""What README and CONTRIBUTING show is run as it stands there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("reader")
    (folder / ".venv").symlink_to(Path(sys.prefix))
    yield folder
    _shell("raypath down", folder)


def _shell(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {k: v for k, v in os.environ.items() if k not in ("RAYPATH_HOME", "PYTHONPATH", "RAY_AUTH_TOKEN_PATH")}
    command = ["bash", "-euo", "pipefail", "-c", code]
    return subprocess.run(command, cwd=folder, env=env | {"PATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_readmes_blocks_do_what_they_say(folder: Path) -> None:
    blocks = _blocks("README.md", "bash")
    assert len(blocks) >= 2
    done = _shell("\n".join(blocks), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "240 predictions in predicted.csv" in done.stdout
    assert len((folder / "predicted.csv").read_text().splitlines()) == 241
    curl = re.search(r"^ +(curl -s .*)$", done.stdout, re.MULTILINE)
    assert curl is not None
    answer = _shell(curl.group(1).replace("curl", "curl --fail", 1), folder)
    assert '"predictions"' in answer.stdout, answer.stderr


def test_the_readme_shows_the_workflow_as_it_is() -> None:
    [shown] = _blocks("README.md", "python")
    whole = (ROOT / "workflows" / "text_classification.py").read_text(encoding="utf-8")
    rest = iter(whole.splitlines())
    assert [line for line in shown.splitlines() if line not in rest] == [], "whole lines, in their order"


def test_the_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets >= {"install", "run", "stop", "test", "test-heavy", "check", "format", "bench"}
    for document in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"make ([a-z-]+)\b", (ROOT / document).read_text())) - {"a", "the"} <= targets | {"an"}


@pytest.mark.slow
def test_the_component_of_contributing_works_as_it_stands(folder: Path) -> None:
    trim, trimmed = _blocks("CONTRIBUTING.md", "python")
    (folder / "trim.py").write_text(trim)
    (folder / "trimmed.py").write_text(trimmed)
    done = _shell("raypath run trimmed:trimmed -s trim.min_characters=80", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    import pyarrow.dataset as ds

    from raypath.deploy.execution.run_history import load_runs

    run = next(run for run in load_runs(folder / ".raypath") if run.workflow == "trimmed")
    kept = ds.dataset(run.step("trim").artifact["uri"], format="parquet").to_table()  # type: ignore[index]
    assert 0 < len(kept) < 5000
    assert min(len(text) for text in kept["text"].to_pylist()) >= 80
    refused = _shell("raypath run trimmed:trimmed -s trim.min_characters=99999", folder)
    assert refused.returncode == 2
    assert "step trim: no text has 99999 characters; lower trim.min_characters" in refused.stderr
