"""The command line: one clear line for a mistake, exit 2 for the user's, and a pinned list of flags."""

import argparse
import importlib.metadata
import os
import re
from pathlib import Path

import pytest

from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.deploy.cli import main as cli


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))


def _said(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    status = cli.main(args)
    out = capsys.readouterr()
    return status, out.out + out.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "text_clasification"], "no workflow text_clasification; did you mean text_classification?"),
        (
            ["run", "nowhere:flow"],
            "cannot import nowhere: No module named 'nowhere'; run from the folder that contains it",
        ),
        (
            ["run", "raypath.workflows.text_classification:TextClassification"],
            "raypath.workflows.text_classification:TextClassification is not a workflow; decorate the "
            "function with @workflow",
        ),
        (
            ["check", "text_classification", "-s", "finetune.epoch=3"],
            "unknown setting finetune.epoch; did you mean finetune.epochs?",
        ),
        (
            ["check", "text_classification", "-s", "finetune.epochs=0"],
            "setting finetune.epochs got '0': wanted greater than or equal to 1, or auto; see `raypath show WORKFLOW`",
        ),
        (
            ["check", "text_classification", "-s", "finetune.epochs=many"],
            "setting finetune.epochs got 'many': wanted a valid integer, unable to parse string as an "
            "integer, or auto; see `raypath show WORKFLOW`",
        ),
        (
            ["check", "text_classification", "-s", "epochs"],
            "-s got 'epochs'; wanted KEY=VALUE; such as -s finetune.epochs=3",
        ),
        (
            ["check", "text_classification", "-f", "none.yaml"],
            "-f none.yaml: No such file or directory; give a readable YAML file",
        ),
        (
            ["run", "text_classification", "--fresh", "fine-tune"],
            "--fresh fine-tune: no such step; did you mean finetune?",
        ),
        (
            ["check", "text_classification", "-s", "registry.name=my model"],
            "setting registry.name got 'my model': wanted 1 to 100 letters, digits, '.', '_' or '-', of "
            "which the first is a letter or digit; see `raypath show WORKFLOW`",
        ),
        (
            ["run", "text_classification", "-s", "read.uri=none.csv"],
            "no file at none.csv; wanted a file, a folder or a glob; correct the path",
        ),
        (
            ["run", "text_classification", "-s", "read.uri=none.csv", "--dry-run"],
            "no file at none.csv; wanted a file, a folder or a glob; correct the path",
        ),
        (["runs", "nothing"], "no run nothing; start with `raypath run text_classification`"),
        (["runs", "--follow", "--json"], "--follow prints something else than --json; give one of them"),
        (["runs", "last", "--follow", "--json"], "--follow prints something else than --json; give one of them"),
        (["usage", "--csv", "usage.csv", "--json"], "--csv prints something else than --json; give one of them"),
        (
            ["schedule", "text_classification", "--cron", "0 3 * * *", "-o", "none/x"],
            "cannot write none/x: No such file or directory; choose another file",
        ),
        (
            ["predict", "model", "data.csv", "-o", "out.xlsx"],
            "-o out.xlsx: unknown format; end it in one of .csv, .jsonl, .parquet",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = _said(capsys, *args)
    assert status == 2
    assert said == f"raypath: {says}\n"


@pytest.mark.parametrize("command", [["status"], ["up"], ["keys", "create", "acme"]])
def test_a_home_that_is_a_file(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.touch()
    monkeypatch.setenv("RAYPATH_HOME", str(home))
    status, said = _said(capsys, *command)
    assert status == 2
    assert said.startswith("raypath: ")
    assert str(home) in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_predict_says_that_the_output_cannot_be_written_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    status, said = _said(capsys, "predict", "model", "data.csv", "-o", "closed/out.csv")
    assert (status, "cannot be written" in said) == (2, True)


@pytest.mark.parametrize(
    ("data", "output"),
    [
        ("s3://bucket/data.csv", "predictions.csv"),
        ("sub/data.v1.csv", "sub/data.predictions.csv"),
        ("elsewhere/data.csv", "data.predictions.csv"),
    ],
)
def test_predictions_are_named_after_their_data_and_replace_nothing(
    capsys: pytest.CaptureFixture[str], data: str, output: str
) -> None:
    for folder in ("sub", "model"):
        Path(folder).mkdir()
    write_metadata(Path("model"), ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8))
    Path(output).touch()
    status, said = _said(capsys, "predict", "model", data)
    assert status == 2
    assert f"{output} exists" in said


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = _said(capsys, "--debug", "check", "text_classification", "-s", "x=1")
    assert status == 2
    assert "Traceback" in said


def test_settings_come_from_a_file_and_the_line_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text("finetune:\n  epochs: 7\n  lr: 0.001\n")
    status, said = _said(capsys, "show", "text_classification", "-f", "p.yaml", "-s", "finetune.epochs=9")
    assert status == 0
    assert "finetune.epochs = 9" in said
    assert "finetune.lr = 0.001" in said


def test_one_params_file_has_the_settings_of_every_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("finetune: {epochs: 3}\nray: {store: s3://bucket/team}\nkubeflow: {gpus: 1}\n")
    for command in (["check"], ["show"], ["run", "--dry-run"], ["run", "--dry-run", "--on", "ray"]):
        assert cli.main([*command, "text_classification", "-f", str(file)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    file.write_text("ray: {stor: s3://bucket/team}\n")
    for command in (["check"], ["run"], ["run", "--on", "ray"]):
        assert cli.main([*command, "text_classification", "-f", str(file)]) == 2
        assert capsys.readouterr().err == "raypath: unknown setting ray.stor; did you mean ray.store?\n"


def test_list_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Fine-tune a text classifier" in _said(capsys, "list")[1]
    assert "11 steps" in _said(capsys, "check", "text_classification")[1]
    assert "nothing was running" in _said(capsys, "down")[1]
    assert "no runs yet" in _said(capsys, "runs")[1]


def test_help_lists_every_command_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Other:" not in shown, "a command without a group"
    listed = re.findall(r"^  (\S+) +\S", shown, re.M)
    commands = next(a for a in cli.parser()._actions if a.choices)
    assert sorted(listed) == sorted(dict(commands.choices or {}))


def test_without_a_command_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = _said(capsys)
    assert (status, said) == (0, cli.parser().format_help())


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"raypath {importlib.metadata.version('raypath')}\n")


def test_a_group_of_commands_needs_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    commands = next(a for a in cli.parser()._actions if a.choices)
    assert commands.choices is not None
    groups = [
        name
        for name, command in dict(commands.choices).items()  # type: ignore[call-overload]
        if any(isinstance(action, argparse._SubParsersAction) for action in command._actions)
    ]
    assert {"keys", "tls", "audit", "backup", "encryption", "retention", "comply"} <= set(groups)
    for name in groups:
        with pytest.raises(SystemExit) as ended:
            cli.main([name])
        assert ended.value.code == 2
        assert "the following arguments are required: ACTION" in capsys.readouterr().err


def test_the_flags_are_these_and_no_others() -> None:
    """One generic -s instead of a flag an option: a new flag is a decision, so this list is pinned."""
    commands = next(a for a in cli.parser()._actions if a.choices)
    assert commands.choices is not None
    flags = {
        name: sorted(f for action in command._actions for f in action.option_strings if f not in ("-h", "--help"))
        for name, command in dict(commands.choices).items()  # type: ignore[call-overload]
    }
    settings = ["--debug", "--json", "-f", "-s"]
    assert flags == {
        "inspect": ["--apply", "--debug", "--json", "-o", "-s"],
        "list": ["--debug", "--json"],
        "show": settings,
        "check": settings,
        "run": ["--address", "--debug", "--dry-run", "--fresh", "--json", "--on", "-f", "-s"],
        "render": ["--debug", "--on", "-f", "-o", "-s"],
        "schedule": ["--cron", "--debug", "--on", "-f", "-o", "-s"],
        "runs": ["--debug", "--follow", "--json"],
        "up": ["--client-auth", "--client-ca", "--debug", "--listen", "--ray-tls", "--revoked", "--tls"],
        "down": ["--debug"],
        "status": ["--debug", "--json"],
        "chat": [
            "--ca",
            "--debug",
            "--max-tokens",
            "--model",
            "--seed",
            "--system",
            "--temperature",
            "--top-p",
            "--url",
        ],
        "predict": ["--debug", "--encrypted", "-o", "-s"],
        "export": ["--debug", "--to", "--type"],
        "risk": ["--answers", "--debug", "--fail-on", "--json", "-o", "-s"],
        "card": ["--about", "--contact", "--debug", "--license"],
        "models": ["--debug", "--json", "--rotate-key", "--sign", "--verify"],
        "promote": ["--debug", "--json"],
        "rollback": ["--debug", "--json"],
        "keys": ["--debug"],
        "audit": ["--debug"],
        "backup": ["--debug"],
        "retention": ["--debug"],
        "forget": ["--column", "--debug", "--dry-run", "--models", "--proof", "--yes"],
        "usage": ["--by", "--csv", "--debug", "--json", "--since", "--tenant"],
        "comply": ["--debug"],
        "encryption": ["--debug"],
        "tls": ["--debug"],
        "init": ["--debug"],
        "schema": ["--debug", "-o"],
        "completion": ["--debug"],
    }
