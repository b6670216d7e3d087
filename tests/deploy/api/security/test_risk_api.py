"""Usage of a home as the assessment of risks reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import raypath
from raypath.components.serving.metering.holder import Key
from raypath.components.serving.metering.usage import Usage, UsageMeter
from raypath.deploy.api.security.risk import metered
from raypath.deploy.cli import main as cli
from raypath.deploy.store.audit import log, records
from raypath.deploy.store.factory import open_store


def _use(folder: Path, key: Key, requests: int) -> None:
    meter = UsageMeter(folder, "r1", period=60.0, model="topics")
    for _ in range(requests):
        meter.record(key, Usage(tokens=100, compute_seconds=0.5), 200, datetime.now(UTC).timestamp())
    meter.close()


def test_usage_is_summed_over_keys_and_days(tmp_path: Path) -> None:
    cheap = Key(id="a", name="one", digest="0" * 64, created=datetime.now(UTC), price_per_request=0.01)
    dear = Key(id="b", name="two", digest="1" * 64, created=datetime.now(UTC), price_per_request=0.03)
    _use(tmp_path, cheap, 10)
    _use(tmp_path, dear, 10)
    found = metered(tmp_path, datetime.now(UTC) + timedelta(seconds=1))
    assert found.requests == 20
    assert found.revenue == pytest.approx(0.4)
    assert found.compute_seconds == pytest.approx(10)
    assert (found.largest_name, found.largest_client) == ("two", pytest.approx(0.75))
    assert found.days <= 1.1


def test_a_home_without_requests_has_no_figures(tmp_path: Path) -> None:
    assert metered(tmp_path / "none", datetime.now(UTC)).requests == 0


def test_the_command_reads_answers_and_fails_on_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / ".raypath"
    monkeypatch.setenv("RAYPATH_HOME", str(home))
    open_store(home)
    (tmp_path / "risk.yaml").write_text("people: 1\nregimes: [gdpr]\n")
    assert {each.id: each for each in raypath.risk(home=home).risks}["one-person"].score == 4
    assert cli.main(["risk", "-s", "people=2", "-o", str(tmp_path / "out")]) == 0
    assert "No legal or financial advice" in capsys.readouterr().out
    assert (tmp_path / "out" / "risk.html").stat().st_mode & 0o777 == 0o600
    assert cli.main(["risk", "--fail-on", "1"]) == 1
    assert cli.main(["risk", "-s", "machine_hours=1"]) == 2
    assert "machine_hour" in capsys.readouterr().err


def test_people_are_counted_by_their_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that acts as root by sudo is the person's own."""
    home = tmp_path / "home"
    open_store(home)
    found = records.this_actor()

    def alone(*accounts: tuple[str, str]) -> bool:
        for user, caller in accounts:
            actor = found.model_copy(update={"user": user, "sudo_user": caller})
            monkeypatch.setattr(records, "this_actor", lambda actor=actor: actor)
            log.record(home, "key.create", "a")
        return "one-person" in {each.id for each in raypath.risk(home=home).risks}

    assert alone(("ann", ""), ("root", "ann"))
    assert not alone(("bob", ""))
