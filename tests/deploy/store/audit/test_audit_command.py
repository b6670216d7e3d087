"""`raypath audit`, and the commands that leave records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypath.deploy.cli import main as cli
from raypath.deploy.store.audit import log
from raypath.deploy.store.audit.records import folder_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def command(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    status = cli.main(args)
    out = capsys.readouterr()
    return status, out.out, out.err


def test_keys_leave_records_without_secrets(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no records yet" in command(capsys, "audit", "list")[1]
    _, key, _ = command(capsys, "keys", "create", "anna", "--scopes", "chat", "--rate", "60")
    assert command(capsys, "keys", "create", "anna")[0] == 2
    command(capsys, "keys", "revoke", "anna")
    status, out, _ = command(capsys, "audit", "list", "--json")
    found = json.loads(out)
    assert status == 0
    assert [(each["action"], each["target"], each["outcome"]) for each in found] == [
        ("key.create", "anna", "ok"),
        ("key.create", "anna", "failed: ParamsError"),
        ("key.revoke", "anna", "ok"),
    ]
    assert found[0]["detail"]["requests_per_minute"] == 60
    assert found[0]["detail"]["id"] == found[2]["detail"]["id"]
    secret = key.strip().split("_", 2)[2]
    assert secret not in (folder_of(home) / "log.jsonl").read_text()
    assert "key.revoke" not in command(capsys, "audit", "list", "--action", "key.create")[1]
    assert command(capsys, "audit", "list", "--action", "key")[1].count("key.") == 3
    assert "no records" in command(capsys, "audit", "list", "--action", "ke")[1]


def test_verify_has_an_exit_status(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are no records" in command(capsys, "audit", "anchor")[2]
    command(capsys, "keys", "create", "anna")
    assert command(capsys, "audit", "verify") == (0, "1 records, no anchors: as written\n", "")
    assert command(capsys, "audit", "anchor")[1] == "record 1 is anchored\n"
    assert "1 anchors, the last one after record 1: as written" in command(capsys, "audit", "verify")[1]
    file = folder_of(home) / "log.jsonl"
    file.write_text(file.read_text().replace("anna", "anne"))
    status, out, _ = command(capsys, "audit", "verify")
    assert (status, out.splitlines()[0]) == (1, "line 1: record 1 was changed")
    status, out, _ = command(capsys, "audit", "verify", "--json")
    assert (status, len(json.loads(out)["problems"])) == (1, 2)


def test_an_export_and_a_failed_promotion_leave_records(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    (home / "model").mkdir()
    assert command(capsys, "export", str(home / "model"), "--to", "hf", "out")[0] == 2
    assert command(capsys, "down")[0] == 0
    found = list(log.read(home))
    assert [(each.action, each.outcome.partition(":")[0]) for each in found] == [
        ("model.export", "failed"),
        ("services.down", "ok"),
    ]
    assert found[0].detail["format"] == "hf"


def test_records_of_a_tenant(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "keys", "tenant", "one", "--models", "topics")
    command(capsys, "keys", "create", "anna", "--tenant", "one")
    command(capsys, "keys", "create", "bert")
    for name in ("topics", "prices"):
        with log.audited(home, "model.promote", f"{name}/3"):
            pass
    command(capsys, "keys", "revoke", "anna")
    found = json.loads(command(capsys, "audit", "list", "--tenant", "one", "--json")[1])
    assert [(each["action"], each["target"]) for each in found] == [
        ("tenant.set", "one"),
        ("key.create", "anna"),
        ("model.promote", "topics/3"),
        ("key.revoke", "anna"),
    ]
    assert "no records" in command(capsys, "audit", "list", "--tenant", "two")[1]
