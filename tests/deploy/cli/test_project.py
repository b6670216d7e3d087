"""`raypath init`, `schema` and `completion`."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypath.components import ParamsError
from raypath.deploy.cli import main as cli
from raypath.deploy.cli.project.init import _reviews, init_project, package_name
from raypath.deploy.cli.project.schema import schema_of
from raypath.deploy.execution.run_history import StepState, StepStatus, begin
from tests.deploy.conftest import Programs

ROOT = Path(__file__).parents[3]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **more}


def _raypath(folder: Path, *args: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raypath.deploy.cli.main", *args]
    env = _environment(RAYPATH_HOME=str(home or folder / ".raypath"))
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("init")
    done = _raypath(parent, "init", "corner-shop")
    assert done.returncode == 0, done.stderr
    assert "  raypath run corner_shop.workflow:corner_shop -f params.yaml\n" in done.stdout
    return parent / "corner-shop"


def test_a_new_project_fits_together_and_its_test_passes(project: Path) -> None:
    line = ["corner_shop.workflow:corner_shop", "-f", "params.yaml", "--json"]
    checked = json.loads(_raypath(project, "check", *line).stdout)
    assert checked["steps"][:4] == ["read", "clean", "split", "configure"]
    assert checked["settings"]["registry.name"] == "corner_shop"
    plan = json.loads(_raypath(project, "run", *line, "--dry-run").stdout)
    assert [step["action"] for step in plan["steps"]] == ["run"] * 12
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(test, cwd=project, env=_environment(), capture_output=True, text=True, timeout=240)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert (project / ".gitignore").read_text().splitlines()[1] == ".raypath/"
    again = _raypath(project.parent, "init", project.name)
    assert (again.returncode, again.stderr) == (2, "raypath: corner-shop is not empty; name a new folder\n")


def test_the_params_file_names_its_schema_and_every_value_fits_it(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=params.schema.json\n")
    schema = json.loads((project / "params.schema.json").read_text(encoding="utf-8"))
    _check(yaml.safe_load(text), schema, schema)
    with pytest.raises(AssertionError, match="epoch is no property"):
        _check({"finetune": {"epoch": 3}}, schema, schema)


def _check(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> None:
    """The part of JSON Schema that params files use."""
    if "$ref" in schema:
        schema = {**schema, **root["$defs"][schema["$ref"].rpartition("/")[2]]}
    if isinstance(value, dict):
        for key, inner in value.items():
            assert key in schema["properties"], f"{key} is no property"
            _check(inner, schema["properties"][key], root)
    elif "type" in schema:
        kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
        assert isinstance(value, kinds[schema["type"]])


def test_a_folder_of_any_name_becomes_a_project(tmp_path: Path) -> None:
    """With spaces, a quote and letters beyond ASCII; what is printed can be pasted."""
    done = _raypath(tmp_path, "init", "Zoë's shop")
    assert done.returncode == 0, done.stderr
    [go, run, _] = [line.strip() for line in done.stdout.partition("Next:\n")[2].splitlines()]
    check = run.replace("raypath run", shlex.join([sys.executable, "-m", "raypath.deploy.cli.main", "check"]), 1)
    done = subprocess.run(f"{go} && {check}", shell=True, cwd=tmp_path, env=_environment(), capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_new_project_runs_as_printed(project: Path, tmp_path: Path, programs: Programs) -> None:
    from tests.tiny import tiny_bert

    line = [
        "run",
        "corner_shop.workflow:corner_shop",
        "-f",
        "params.yaml",
        "-s",
        f"finetune.base={tiny_bert(tmp_path)}",
    ]
    done = _raypath(project, *line, home=programs.home)
    assert done.returncode == 0, done.stderr
    assert "in service        corner_shop version 1" in done.stdout


NAMES = {
    "shop": "shop",
    "Corner Shop": "corner_shop",
    "json": "json_project",
    "pytest": "pytest_project",
    "class": "class_project",
    "2026": "p_2026",
    "...": "project",
    "data": "data_project",
    "Café Zürich": "cafe_zurich",
    "茶": "project",
    "long " * 30: "long_" * 11 + "long",
}


@pytest.mark.parametrize(("folder", "package"), NAMES.items())
def test_a_package_hides_no_other_module(folder: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest puts the folders of tests on the path, one of which has a module `project`.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "tests" not in Path(path).parts])
    assert package_name(folder) == package


def test_the_example_rows_are_always_the_same() -> None:
    lines = _reviews().splitlines()
    assert lines[:3] == [
        "text,label",
        '"Order 0 was ideal, crisp and lovely",good',
        '"Order 1 was ideal, lovely and generous",good',
    ]
    assert len(lines) == 241
    assert (
        hashlib.sha256(_reviews().encode()).hexdigest()
        == "fc5fa7490afbde2bacef7df4234a5283ce5f0e326ba24362ad6bdcdc64204b81"
    )


def test_the_files_of_a_project(tmp_path: Path) -> None:
    folder = tmp_path / "my shop"
    assert init_project(folder).splitlines() == [
        *(f"made {folder}: 10 files", "", "Next:", f"  cd '{folder}'"),
        "  raypath run my_shop.workflow:my_shop -f params.yaml",
        "  pip install pytest && python -m pytest",
    ]
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(name for name in files if not name.endswith(".pyc")) == [
        *(".gitignore", "README.md", "data/reviews.csv", "my_shop/__init__.py", "my_shop/clean.py"),
        *("my_shop/workflow.py", "params.schema.json", "params.yaml", "pyproject.toml", "tests/test_clean.py"),
    ]
    assert (folder / "my_shop" / "__init__.py").read_text() == '"""Workflow and components of my_shop."""\n'


def test_a_schema_has_what_it_refers_to() -> None:
    schema = schema_of("batch_prediction")

    def references(node: Any) -> set[str]:
        if isinstance(node, list):
            return {name for inner in node for name in references(inner)}
        if not isinstance(node, dict):
            return set()
        own = {node["$ref"].rpartition("/")[2]} if isinstance(node.get("$ref"), str) else set()
        return own | {name for inner in node.values() for name in references(inner)}

    assert {"KubeRayParams", "KubeflowParams", "RayParams", "Size"} <= references(schema) == set(schema["$defs"])
    assert schema["properties"]["ray"] == {"$ref": "#/$defs/RayParams", "description": "For --on ray."}
    assert schema["title"] == "Settings of batch_prediction"
    assert "local" not in schema["properties"]


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for folder in (tmp_path, tmp_path / "a"):
        with pytest.raises(ParamsError) as told:
            init_project(folder)
        assert str(told.value) == f"{folder} is not empty; name a new folder"
    with pytest.raises(ParamsError) as closed:
        init_project(tmp_path / "a" / "b")
    assert str(closed.value) == f"cannot write to {tmp_path}/a/b: Not a directory; choose another folder"


def test_the_schema_describes_every_setting() -> None:
    schema = schema_of("text_classification")
    assert schema["$schema"].endswith("2020-12/schema")
    assert {"read", "finetune", "serve", "seed", "kuberay"} <= set(schema["properties"])
    finetune = schema["$defs"]["FinetuneParams"]
    assert finetune["additionalProperties"] is False
    assert {"minimum": 1, "type": "integer"} in finetune["properties"]["epochs"]["anyOf"], "or auto"
    bare = [name for name, field in finetune["properties"].items() if not {"description", "$ref"} & set(field)]
    assert not bare


def test_a_written_schema_comes_with_the_line_for_editors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.json"
    assert cli.main(["schema", "regression", "-o", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "# yaml-language-server: $schema=s.json"
    written = out.read_text(encoding="utf-8")
    assert cli.main(["schema", "regression"]) == 0
    assert capsys.readouterr().out == written


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert f"raypath completion {shell}" in out.splitlines()[0]
    assert "_ARGCOMPLETE" in out


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("raypath che", "check"),
        ("raypath run text_cl", "text_classification"),
        ("raypath run text_classification -s finetune.ep", "finetune.epochs="),
        ("raypath run text_classification --fresh fine", "finetune"),
        ("raypath runs la", "last"),
        ("raypath run text_classification --dry", "--dry-run"),
        ("raypath rollback top", "topics"),
        ("raypath promote top", "topics"),
        ("raypath promote topics ", "3"),
    ],
)
def test_words_are_completed(line: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    run = begin(tmp_path, "text_classification", "0", {}, ["register"])
    made = {"name": "topics", "version": 3, "alias": "champion"}
    run.steps[0] = StepState(name="register", status=StepStatus.DONE, artifact=made)
    run.save(tmp_path)
    found = tmp_path / "words"
    env = _environment(
        _ARGCOMPLETE="1",
        _ARGCOMPLETE_IFS="\n",
        _ARGCOMPLETE_STDOUT_FILENAME=str(found),
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
        COMP_TYPE="9",
        RAYPATH_HOME=str(tmp_path),
    )
    command = [sys.executable, "-m", "raypath.deploy.cli.main"]
    subprocess.run(command, env=env, capture_output=True, timeout=60, check=True)
    assert word in [each.strip() for each in found.read_text().split("\n")]
