"""README and documentation: blocks of code are run, and commands, settings, files and links that they name exist."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import raypath
from raypath.components.core.params import Params, known_keys
from raypath.deploy.cli.main import parser
from raypath.deploy.execution.overrides import from_line
from raypath.deploy.execution.workflow_loader import built_in_workflows, load_workflow
from raypath.deploy.launchers import LAUNCHERS
from raypath.deploy.local import services
from tests.fork_server.start import forked_heads
from tests.markdown import KNOWN, PYTHON, ROOT, SHELL, Block, blocks, pages, prose

PAGES = pages()
ALL = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if page != "README.md" and any(block.is_run for block in blocks(page))]
MARKS = {"needs": {"cluster", "checkout"}, "part of": None, "file": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forks: None) -> Iterator[Path]:
    """A reader's folder, in which the blocks of all pages run one after another."""
    folder = tmp_path_factory.mktemp("reader")
    with forked_heads():
        services.up(folder / ".raypath", wait=False, dashboard=False)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    yield folder
    _shell("raypath down", folder)


@pytest.fixture(scope="module")
def project(folder: Path) -> tuple[Path, str]:
    """The folder after the blocks of README, with a model in service, and what the blocks printed."""
    done = _shell(_script("README.md"), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def _script(page: str) -> str:
    """The blocks of a page as one script."""
    parts = ["project=$PWD"]
    for block in blocks(page):
        parts.append('cd "$project"')
        if block.mark == "file":
            parts.append(f"cat > {block.value} <<'RAYPATH_END'\n{block.code}RAYPATH_END")
        elif block.is_run:
            parts.append(
                block.code if block.language == "bash" else f"python - <<'RAYPATH_END'\n{block.code}RAYPATH_END"
            )
    return "\n".join(parts)


def _shell(code: str, folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {k: v for k, v in os.environ.items() if k not in ("RAYPATH_HOME", "PYTHONPATH", "RAY_AUTH_TOKEN_PATH")}
    command = ["bash", "-euo", "pipefail", "-c", code]
    env |= {"PATH": path, **extra}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_readmes_blocks_do_what_they_say(project: tuple[Path, str]) -> None:
    folder, printed = project
    assert "240 predictions in predicted.csv" in printed
    assert len((folder / "predicted.csv").read_text().splitlines()) == 241
    curl = re.search(r"^ +(curl -s .*)$", printed, re.MULTILINE)
    assert curl is not None
    answer = _shell(curl.group(1).replace("curl", "curl --fail", 1), folder)
    assert '"predictions"' in answer.stdout, answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(project: tuple[Path, str], page: str) -> None:
    folder, printed = project
    url = re.search(r"in service +topics version \d+ at (\S+)", printed)
    assert url is not None
    done = _shell(_script(page), folder, URL=url.group(1))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_component_of_contributing_does_what_it_says(project: tuple[Path, str]) -> None:
    import pyarrow.dataset as ds

    from raypath.deploy.execution.run_history import load_runs

    folder, _ = project
    done = _shell(_script("CONTRIBUTING.md"), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    run = next(run for run in load_runs(folder / ".raypath") if run.workflow == "trimmed")
    kept = ds.dataset(run.step("trim").artifact["uri"], format="parquet").to_table()  # type: ignore[index]
    assert 0 < len(kept) < 5000
    assert min(len(text) for text in kept["text"].to_pylist()) >= 80
    rejected = _shell("raypath run trimmed:trimmed -s trim.min_characters=99999", folder)
    assert rejected.returncode == 2
    assert "step trim: no text has 99999 characters; lower trim.min_characters" in rejected.stderr


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_of_code_is_run_or_marked(block: Block) -> None:
    assert block.language in KNOWN, f"{block}: name its language, or text"
    if block.language in (*SHELL, *PYTHON):
        assert block.is_run or block.mark in MARKS, f"{block}: Bash or Python that runs, or a mark (tests/markdown.py)"
    if block.mark:
        values = MARKS[block.mark]
        assert values is None or block.value in values, block


@pytest.mark.parametrize("page", PAGES)
def test_code_stands_in_fences(page: str) -> None:
    indented = re.findall(r"\n\n(?! *[-*\d])[^\n ][^\n]*\n\n( {4}\S[^\n]*)", prose(page))
    assert not indented


@pytest.mark.parametrize("block", [block for block in ALL if block.mark == "part of"], ids=str)
def test_a_part_of_a_file_is_as_in_the_file(block: Block) -> None:
    rest = iter((ROOT / block.value).read_text(encoding="utf-8").splitlines())
    assert [line for line in block.code.splitlines() if line not in rest] == [], "whole lines, in their order"


@pytest.mark.parametrize("block", [block for block in ALL if block.commands("raypath")], ids=str)
def test_commands_parse_and_their_settings_exist(block: Block) -> None:
    for command in block.commands("raypath"):
        args = parser().parse_args(shlex.split(command)[1:])
        if hasattr(args, "workflow") and args.workflow in built_in_workflows():
            _override(args.workflow, from_line(getattr(args, "settings", [])))


def _override(workflow: str, settings: dict[str, object]) -> None:
    of_workflow = {key: value for key, value in settings.items() if key.partition(".")[0] not in LAUNCHERS}
    load_workflow(workflow).params_type().override(of_workflow)
    for name in LAUNCHERS:
        own = {key.removeprefix(f"{name}."): value for key, value in settings.items() if key.startswith(f"{name}.")}
        _launcher_params(name)().override(own)


def _launcher_params(name: str) -> type[Params]:
    return importlib.import_module(LAUNCHERS[name]).PARAMS


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_are_named_exist(page: str) -> None:
    known = {key for name in built_in_workflows() for key in known_keys(load_workflow(name).params_type)}
    known |= {f"{name}.{key}" for name in LAUNCHERS for key in known_keys(_launcher_params(name))}
    groups = {key.partition(".")[0] for key in known if "." in key}
    text = prose(page)
    named = re.findall(r"`(?:-s )?([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", text) + re.findall(r"-s ([a-z_.]+)=", text)
    unknown = {name for name in named if name.partition(".")[0] in groups and name not in known}
    unknown = {name for name in unknown if name.rpartition(".")[0] != "read.kinds"}  # a mapping with free keys
    assert not {name for name in unknown if not name.startswith("kubeflow.steps.")}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:components|deploy|workflows|tests|k8s|docs)/[\w./-]+)`", text))
    named |= {path.replace(".", "/") for path in re.findall(r"python -m (tests\.[\w.]+)", text)}
    missing = {
        name for name in named - {"docs/_build"} if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()
    }
    assert not {name for name in missing if not re.search(r"VERB|NAME|components/(?!.*\.py)[a-z-]+$", name)}


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_are_named_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / page).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)\b", text, re.MULTILINE)) <= targets


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def _build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", str(source), str(site)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pages and of all that they refer to."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("docs", "k8s", "workflows", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("_build", "__pycache__"))
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_the_network(pages: Path) -> None:
    site = pages / "site"
    done = _build(pages / "docs", site)
    assert done.returncode == 0, done.stderr
    loaded = r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//|url\([\"']?https?:|@import"
    files = [path for kind in ("html", "css", "svg") for path in site.rglob(f"*.{kind}")]
    assert len(files) > 20
    for path in files:
        assert not re.search(loaded, path.read_text(encoding="utf-8")), path
    assert "finetune.lr" in (site / "settings.html").read_text()
    assert "raypath keys create" in (site / "cli.html").read_text()
    api = (site / "api.html").read_text()
    assert not [name for name in raypath.__all__ if f'id="raypath.{name}"' not in api]


@pytest.mark.slow
def test_a_broken_link_or_anchor_fails_the_build(pages: Path) -> None:
    """After a build without one, what has changed is built alone."""
    with (pages / "docs" / "keys.md").open("a") as page:
        page.write("\n[one](absent.md), [two](serving.md#absent) and [three](../absent.py)\n")
    done = _build(pages / "docs", pages / "site")
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 3, done.stderr
    assert all("absent" in line for line in warnings), done.stderr
