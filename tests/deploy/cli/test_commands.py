"""What commands print and return, with the interface below them in its place; and how any error ends a command."""

from __future__ import annotations

import errno
import os
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import ParamsError, PlatformError, UserError
from raypath.deploy.api import models as api_models
from raypath.deploy.api import runs as api_runs
from raypath.deploy.api import services as api_services
from raypath.deploy.api.project import home_folder
from raypath.deploy.api.results import Promotion, Status
from raypath.deploy.api.run_results import Run
from raypath.deploy.cli import commands, completion, json_output
from raypath.deploy.cli import main as cli
from raypath.deploy.cli.prediction import predict
from raypath.deploy.cli.project.schema import editor_line, print_schema
from raypath.deploy.cli.security import signatures
from raypath.deploy.execution.run_history import Run as Record
from raypath.deploy.execution.run_history import RunStatus, StepState, StepStatus
from raypath.deploy.local import services as local


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))


def _printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(args) == 0
    return capsys.readouterr().out


def test_promotions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    calls: list[Any] = []

    def promote(*args: Any, **options: Any) -> Promotion:
        calls.append((args, options))
        return Promotion(name="topics", version=3, previous=2, serving="scaled to zero")

    monkeypatch.setattr(api_models, "promote", promote)
    monkeypatch.setattr(api_models, "rollback", promote)
    line = "topics: version 3 is champion and scaled to zero\n"
    assert _printed(capsys, "promote", "topics", "3") == line
    assert _printed(capsys, "rollback", "topics") == line.replace("champion and", "champion again and")
    home = {"home": tmp_path / "home"}
    assert calls == [(("topics", 3), home), (("topics",), home)]
    assert '"serving": "scaled to zero"' in _printed(capsys, "promote", "topics", "3", "--json")
    assert '"version": 3' in _printed(capsys, "rollback", "topics", "--json")


def test_services(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given: list[Any] = []
    status = Status(home="h", services=[], endpoints=[], public_url="https://a:1", shard_cache=None)

    def up(**options: Any) -> Status:
        given.append(options)
        return status

    monkeypatch.setattr(api_services, "up", up)
    monkeypatch.setattr(api_services, "status", lambda home: status)
    monkeypatch.setattr(api_services, "down", lambda home: ["ray: stopped, 3 processes", "mlflow: stopped, 1 process"])
    monkeypatch.setattr(local, "login_url", lambda home: f"http://login/{home.name}")
    endpoints = f"{'':<15}{'https://a:1':<26} endpoints, for other machines\n"
    link = "\nMLflow in a browser (log in within 10 minutes, once): http://login/home\n"
    assert _printed(capsys, "up") == endpoints + link
    assert _printed(capsys, "up", "--listen", "a:1", "--tls", "t.pem") == endpoints + link
    home = tmp_path / "home"
    none = {"listen": "", "tls": None, "client_ca": None, "revoked": None, "client_auth": "", "ray_tls": False}
    assert given == [
        {**none, "home": home},
        {**none, "listen": "a:1", "tls": Path("t.pem"), "home": home},
    ]
    assert _printed(capsys, "status") == endpoints
    assert _printed(capsys, "down") == "ray: stopped, 3 processes\nmlflow: stopped, 1 process\n"


def test_certificates_are_for_other_machines() -> None:
    for options in ({"tls": "t.pem"}, {"client_ca": "c.pem"}, {"revoked": "r.pem"}, {"client_auth": "required"}):
        with pytest.raises(UserError) as told:
            api_services.up(**options)  # type: ignore[arg-type]
        assert str(told.value) == "certificates are for other machines; give listen too, such as 0.0.0.0:8443"


def test_versions_that_are_signed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(signatures.signatures, "sign", lambda *args, home: args)
    assert signatures.sign(Namespace(sign=("m", "3"), home=None)) == ("m", 3)
    for version in ("x", "-1", "٣", "1.0"):
        assert cli.main(["models", "--sign", "m", version]) == 2
        message = f"raypath: --sign m got the version {version!r}; wanted an integer; see `raypath models`\n"
        assert capsys.readouterr().err == message


def test_files_are_predicted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(predict, "predict_file", lambda *args: f"{len(args)} arguments, {args[1:4]}")
    assert _printed(capsys, "predict", "m", "a.csv") == "5 arguments, ('m', 'a.csv', None)\n"


@pytest.mark.parametrize(
    ("model", "out", "says"),
    [
        ("none", None, "no model folder none; a registered one is models:/none@champion"),
        ("none", "a.xlsx", "-o a.xlsx: unknown format; end it in one of .csv, .jsonl, .parquet"),
        ("none", "no/a.csv", "-o no/a.csv: there is no folder no; create it first"),
        ("none", "there.csv", "there.csv exists; remove it, or name another with -o"),
        (
            "none",
            "x" * 300 + ".csv",
            f"-o {'x' * 300}.csv cannot be written (File name too long); name another file or folder with -o",
        ),
    ],
)
def test_predictions_that_cannot_be_made(model: str, out: str | None, says: str, tmp_path: Path) -> None:
    Path("there.csv").touch()
    with pytest.raises(ParamsError) as told:
        predict.predict_file(tmp_path / "home", model, "a.csv", Path(out) if out else None, [])
    assert str(told.value) == says
    assert os.listdir() == ["there.csv"]


def test_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.home() == home_folder() == tmp_path / "home"
    assert home_folder(tmp_path / "x") == tmp_path / "x"
    for unset in ("", None):
        monkeypatch.setenv("RAYPATH_HOME", "")
        assert cli.home() == home_folder(unset) == tmp_path / ".raypath"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder("~/h") == tmp_path / "h"


def test_schemas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_schema("batch_prediction", tmp_path / "s.json")
    line = "# yaml-language-server: $schema=s.json"
    assert editor_line("s.json") == line
    text = "Put this line first in the params file, if both are in the same folder:\n"
    assert capsys.readouterr().out == f"{text}{line}\n"


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UserError("no column x", fix="name it"), 2, "raypath: no column x; name it\n"),
        (PlatformError("no space", fix="free some"), 1, "raypath: no space; free some\n"),
        (KeyboardInterrupt(), 130, "raypath: interrupted; run the same command again to resume\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "raypath: the disk of HOME is full; free disk space, then run the same command again\n",
        ),
        (ValueError("a\x1b[1m"), 1, "raypath: unexpected ValueError: a\\x1b[1m; run again with --debug\n"),
    ],
)
def test_errors_end_a_command(
    error: BaseException,
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fail(home: Path) -> None:
        raise error

    monkeypatch.setattr(api_services, "status", fail)
    assert cli.main(["status"]) == status
    assert capsys.readouterr().err == says.replace("HOME", str(tmp_path / "home"))


def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for args, says in (
        (["promote", "m", "x"], "raypath: argument VERSION: invalid int value: 'x'; see `raypath promote --help`\n"),
        (["keys"], "raypath: the following arguments are required: ACTION; see `raypath keys --help`\n"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(args)
        assert (ended.value.code, capsys.readouterr().err) == (2, says)


def _record(id: str, status: RunStatus, **step: Any) -> Record:
    steps = [StepState(name="register", status=StepStatus.DONE, **step)]
    common: dict[str, Any] = {"workflow": "w", "settings_digest": "d", "params": {}}
    return Record(id=id, status=status, started=float(id[-1]), ended=9.0, steps=steps, **common)


def test_words_of_completion(tmp_path: Path) -> None:
    (tmp_path / "home" / "runs").mkdir(parents=True)
    made = [*(("topics", n) for n in range(8, 0, -1)), ("prices", 1)]
    for number, (name, version) in enumerate(made):
        artifact = {"name": name, "version": version, "alias": "champion"}
        _record(f"r-{number}", RunStatus.DONE, artifact=artifact).save(tmp_path / "home")
    _record("r-9", RunStatus.DONE, artifact={"rows": 3}).save(tmp_path / "home")
    words = completion.COMPLETERS
    assert words["run"]() == ["last", *(f"r-{n}" for n in range(10))]
    assert words["registered"]() == ["prices", "topics"]
    assert words["version"](parsed_args=Namespace(registered="topics")) == list("12345678")
    assert words["allowed_models"]() == ["prices", "topics", "all"]
    assert words["allowed_models"](prefix="topics,p") == ["topics,prices"]
    assert "batch_prediction" in words["workflow"]()
    batch = Namespace(workflow="batch_prediction")
    assert words["fresh"](parsed_args=batch) == words["fresh"](parsed_args=Namespace()) == ["read", "predict"]
    assert {"read.uri=", "predict.batch="} <= set(words["settings"](parsed_args=batch))
    assert set(words) == {"workflow", "settings", "fresh", "run", "registered", "allowed_models", "version"}


def test_a_run_that_failed_is_printed_beside_its_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "runs").mkdir(parents=True)
    _record("r-1", RunStatus.FAILED).save(home)

    def fail(*_: Any, **__: Any) -> Run:
        _record("r-2", RunStatus.FAILED).save(home)
        raise PlatformError("no space", fix="free some")

    monkeypatch.setattr(api_runs, "run", fail)
    assert cli.main(["run", "batch_prediction", "--json"]) == 1
    out, err = capsys.readouterr()
    assert '"id": "r-2"' in out
    assert err == "raypath: no space; free some\n"

    def stop(*_: Any, **__: Any) -> Run:
        raise PlatformError("no space", fix="free some")

    monkeypatch.setattr(api_runs, "run", stop)
    assert cli.main(["run", "batch_prediction", "--json"]) == 1
    assert capsys.readouterr().out == "", "an earlier run that failed is not this one"


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home" / "runs").mkdir(parents=True)
    for number in (1, 2):
        _record(f"r-{number}", RunStatus.DONE).save(tmp_path / "home")
    for name, id in (("last", "r-2"), ("r-1", "r-1"), ("r-", "r-2")):
        assert f'"id": "{id}"' in _printed(capsys, "runs", name, "--json")
    assert cli.main(["runs", "x", "--json"]) == 2
    assert capsys.readouterr().err == "raypath: no run x; see `raypath runs`\n"


def test_commands_by_their_options() -> None:
    for given, key in (
        ({"command": "run", "dry_run": False}, "run"),
        ({"command": "run", "dry_run": True}, "run --dry-run"),
        ({"command": "runs", "run": None}, "runs"),
        ({"command": "runs", "run": "last"}, "runs RUN"),
        ({"command": "models", "verify": False, "sign": None, "rotate_key": False}, "models"),
        ({"command": "models", "verify": True, "sign": None, "rotate_key": False}, "models --verify"),
        ({"command": "models", "verify": False, "sign": ["m", "1"], "rotate_key": False}, "models --sign"),
        ({"command": "models", "verify": False, "sign": None, "rotate_key": True}, "models --rotate-key"),
    ):
        assert json_output._selected(Namespace(**given)) is json_output.COMMANDS[key]
    kinds = json_output.models_of([list[Run], Run])
    assert kinds == [Run, Run]


def test_models_return_the_status_of_their_signatures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none: dict[str, Any] = {"verify": False, "sign": None, "rotate_key": False, "home": None}
    monkeypatch.setattr(signatures, "verify", lambda args: [SimpleNamespace(state="altered")])
    monkeypatch.setattr(signatures, "show_signatures", lambda found: 7)
    assert commands.models(Namespace(**{**none, "verify": True})) == 7
    monkeypatch.setattr(api_models, "models", lambda home: [])
    assert commands.models(Namespace(**none)) == 0
    assert capsys.readouterr().out == "no models yet; `raypath run text_classification` registers one\n"
