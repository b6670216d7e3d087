"""Times of crontab, the crontab line, and the receiver of webhooks: what is taken, and each message in full."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from raypath.components import ParamsError, Unavailable, UserError
from raypath.deploy.launchers import RunRequest
from raypath.deploy.triggers import schedule, webhook
from raypath.deploy.triggers.webhook import Receiver


@pytest.mark.parametrize(
    "cron",
    [
        *("0 0 1 1 0", "59 23 31 12 7", "* * * * *", "*/15 0-6 1,15 JAN-dec Mon,fri", "1-5/2 * * * sun-sat"),
        *("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"),
    ],
)
def test_times(cron: str) -> None:
    schedule.check(cron)


HELP = "see `man 5 crontab`"


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("0 3 * *", "--cron '0 3 * *' has 4 fields; wanted 5; such as --cron \"0 3 * * 1\""),
        ("@never", "--cron '@never' has 1 fields; wanted 5; such as --cron \"0 3 * * 1\""),
        ("60 3 * * 1", f"--cron '60 3 * * 1': '60' is not a valid minute; wanted 0-59; {HELP}"),
        ("0 24 * * 1", f"--cron '0 24 * * 1': '24' is not a valid hour; wanted 0-23; {HELP}"),
        ("0 3 0 * 1", f"--cron '0 3 0 * 1': '0' is not a valid day of the month; wanted 1-31; {HELP}"),
        ("0 3 32 * 1", f"--cron '0 3 32 * 1': '32' is not a valid day of the month; wanted 1-31; {HELP}"),
        ("0 3 * 13 1", f"--cron '0 3 * 13 1': '13' is not a valid month; wanted 1-12; {HELP}"),
        ("0 3 * foo *", f"--cron '0 3 * foo *': 'foo' is not a valid month; wanted 1-12; {HELP}"),
        ("0 3 * * 8", f"--cron '0 3 * * 8': '8' is not a valid day of the week; wanted 0-7; {HELP}"),
        ("0 3 * * jan", f"--cron '0 3 * * jan': 'jan' is not a valid day of the week; wanted 0-7; {HELP}"),
        ("*/0 * * * *", f"--cron '*/0 * * * *': '*/0' is not a valid minute; wanted 0-59; {HELP}"),
        ("1/ * * * *", f"--cron '1/ * * * *': '1/' is not a valid minute; wanted 0-59; {HELP}"),
        ("1- * * * *", f"--cron '1- * * * *': '1-' is not a valid minute; wanted 0-59; {HELP}"),
        ("٣ * * * *", f"--cron '٣ * * * *': '٣' is not a valid minute; wanted 0-59; {HELP}"),
        ("1,,2 * * * *", f"--cron '1,,2 * * * *': '' is not a valid minute; wanted 0-59; {HELP}"),
    ],
)
def test_times_that_are_none(cron: str, says: str) -> None:
    with pytest.raises(ParamsError) as told:
        schedule.check(cron)
    assert str(told.value) == says


def test_the_numbers_of_names() -> None:
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    assert [schedule._value(name, 3) for name in months] == list(range(1, 13))
    assert [schedule._value(name, 4) for name in ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]] == list(range(7))
    assert (schedule._value("sun", 3), schedule._value("jan", 0), schedule._value("7", 0)) == (None, None, 7)


def test_a_crontab_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*schedule.PASSED, "RAYPATH_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    request = RunRequest("flow", None, tmp_path / "a home", {"a.b": 0.5, "c": "50% x"})  # type: ignore[arg-type]
    python, home, here = shlex.quote(sys.executable), shlex.quote(str(tmp_path / "a home")), shlex.quote(str(tmp_path))
    command = f"{python} -m raypath.deploy.cli.main run flow -s a.b=0.5 -s 'c=50\\% x'"
    log = shlex.quote(str(tmp_path / "a home" / "schedule.log"))
    line = f"@daily cd {here} && RAYPATH_HOME={home} {command} >> {log} 2>&1\n"
    assert schedule.crontab_line(request, "@daily") == schedule.render(request, "@daily", "local", None) == line
    names = [*schedule.PASSED, "RAYPATH_PRECISION"]
    for name in names:
        monkeypatch.setenv(name, "fp32")
    words = schedule.crontab_line(request, "@daily").partition("&& ")[2].partition(python)[0].split()
    assert [word.partition("=")[0] for word in words if word.endswith("=fp32")] == [names[-1], *names[:-1]]


def test_receivers_that_cannot_start(tmp_path: Path) -> None:
    for secret in ("", "x" * 15):
        with pytest.raises(UserError) as told:
            Receiver(secret, "m", "champion")
        assert str(told.value) == "no secret of 16 characters or more is set; set $RAYPATH_WEBHOOK_SECRET"
    state = tmp_path / "state.json"
    for text in ("[]", "{", '{"a": "x"}', '{"a": null}'):
        state.write_text(text)
        with pytest.raises(UserError) as other:
            Receiver("x" * 16, "m", "champion", state=state)
        assert str(other.value) == f"{state} has no deliveries; remove it, or name another file"
    state.write_text('{"a": 5}')
    assert Receiver("x" * 16, "m", "champion", state=state)._seen == {"a": 5.0}


MOVED = {"entity": "model_version_alias", "action": "created", "data": {"name": "m", "alias": "a", "version": 3}}


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (MOVED, {"RAYPATH_MODEL": "m", "RAYPATH_ALIAS": "a", "RAYPATH_VERSION": "3"}),
        (MOVED | {"action": "deleted"}, None),
        (MOVED | {"entity": "model_version"}, None),
        (MOVED | {"data": {"name": "m", "alias": "a"}}, None),
        (MOVED | {"data": None}, None),
        ([], None),
        ({}, None),
    ],
)
def test_events(event: Any, found: dict[str, str] | None) -> None:
    assert webhook._event(json.dumps(event).encode()) == found
    assert webhook._event(b"{") is None


def test_the_command_does_not_get_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_WEBHOOK_SECRET", "hush")
    monkeypatch.setenv("OTHER", "x")
    assert webhook._environment() == {k: v for k, v in os.environ.items() if k != "RAYPATH_WEBHOOK_SECRET"}
    assert webhook._environment()["OTHER"] == "x"


class Hooks:
    """MLflow's client with two webhooks, of which one has the receiver's name."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def list_webhooks(self) -> list[Any]:
        from types import SimpleNamespace

        return [SimpleNamespace(name=name, webhook_id=name[-1]) for name in ("raypath-m-champion", "other-2")]

    def delete_webhook(self, id: str) -> None:
        self.calls.append(("delete", id))

    def create_webhook(self, *args: Any, **options: Any) -> None:
        self.calls.append((args, options))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_webhook_is_announced_in_place_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    hooks = Hooks()
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: hooks)
    webhook.announce("http://here", "secret", "m", "champion")
    given = ("raypath-m-champion", "http://here", ["model_version_alias.created"])
    assert hooks.calls == [("delete", "n"), (given, {"secret": "secret"})]

    def reject(*_: Any, **__: Any) -> None:
        raise MlflowException("no https\nmore")

    monkeypatch.setattr(hooks, "create_webhook", reject)
    with pytest.raises(Unavailable) as told:
        webhook.announce("http://here", "secret", "m", "champion")
    fix = "check $MLFLOW_TRACKING_URI, and the webhook settings of MLflow's server"
    assert str(told.value) == f"MLflow rejects the webhook: no https; {fix}"


def test_a_receiver_ends_with_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RAYPATH_WEBHOOK_SECRET", raising=False)
    assert webhook.main(["--model", "m", "--", "true"]) == 2
    message = "raypath: no secret of 16 characters or more is set; set $RAYPATH_WEBHOOK_SECRET\n"
    assert capsys.readouterr() == ("", message)
    monkeypatch.setenv("RAYPATH_WEBHOOK_SECRET", "x" * 16)

    def stop(self: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(webhook.ThreadingHTTPServer, "serve_forever", stop)
    announced: list[Any] = []
    monkeypatch.setattr(webhook, "announce", lambda *args: announced.append(args))
    assert webhook.main(["--model", "m", "--port", "0", "--announce", "http://me", "--", "true"]) == 130
    assert announced == [("http://me", "x" * 16, "m", "champion")]
    shown = capsys.readouterr().out
    assert shown.startswith("listening at http://127.0.0.1:")
    assert shown.endswith(" for m@champion\n")
