"""The commands `keys` and `usage`: a secret is shown once, reports add up."""

from __future__ import annotations

import csv
import json
import stat
import time
from datetime import UTC
from pathlib import Path

import pytest

from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.usage import Usage, UsageMeter
from raypath.deploy.cli import main as cli
from raypath.deploy.cli.security import keys


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))


def _said(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    status = cli.main(args)
    out = capsys.readouterr()
    return status, out.out, out.err


def test_a_key_is_shown_once_and_listed_without_its_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no keys yet" in _said(capsys, "keys", "list")[1]
    limits = [
        "--rate",
        "60",
        "--rate-tokens",
        "9000",
        "--quota-tokens",
        "1000000",
        "--quota-requests",
        "5000",
        "--price-tokens",
        "0.02",
    ]
    status, out, told = _said(capsys, "keys", "create", "anna", "--expires", "30d", "--scopes", "embed", *limits)
    assert status == 0
    text = out.strip()
    assert "cannot be shown again" in told
    key = KeyStore(tmp_path / "home" / "access").check(text, "embed", time.time())
    assert key.expires is not None
    assert (key.expires - key.created).days == 30
    assert (key.requests_per_minute, key.quota_tokens, key.quota_requests) == (60, 1_000_000, 5_000)
    assert key.tokens_per_minute == 9_000
    assert (key.price_per_1k_tokens, key.scopes) == (0.02, ("embed",))
    listed = _said(capsys, "keys", "list")[1]
    header, line = listed.splitlines()
    assert header.split()[:4] == ["id", "name", "status", "for"]
    assert line.split()[:4] == [key.id, "anna", "active", "embed"]
    assert "1,000,000" in line
    assert "9,000" in line
    assert text.split("_", 2)[2] not in listed
    assert key.digest not in listed


def test_a_key_names_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _said(capsys, "keys", "create", "anna", "--models", "topics, prices,topics")[0] == 0
    made = json.loads(_said(capsys, "keys", "create", "bert", "--models", "all", "--json")[1])
    assert made["models"] is None
    assert [row["models"] for row in json.loads(_said(capsys, "keys", "list", "--json")[1])] == [
        ["topics", "prices"],
        None,
    ]
    header, anna, bert = _said(capsys, "keys", "list")[1].splitlines()
    assert header.split()[4] == "models"
    assert (anna.split()[4], bert.split()[4]) == ("topics,prices", "all")


def test_revoke_by_name_or_id(capsys: pytest.CaptureFixture[str]) -> None:
    _said(capsys, "keys", "create", "anna")
    _said(capsys, "keys", "create", "bert", "--expires", "2999-01-01")
    id = _said(capsys, "keys", "list")[1].splitlines()[2].split()[0]
    assert "is revoked" in _said(capsys, "keys", "revoke", "anna")[1]
    assert _said(capsys, "keys", "revoke", id)[0] == 0
    assert [line.split()[2] for line in _said(capsys, "keys", "list")[1].splitlines()[1:]] == ["revoked"] * 2


def test_a_day_without_a_zone_is_one_in_utc(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(time.tzset)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert keys._moment("2026-11-01").isoformat() == "2026-11-01T00:00:00+00:00"
        assert keys._moment("2026-11-01T00:00+09:00").astimezone(UTC).day == 31


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["keys", "revoke", "nobody"], "no key nobody that could be revoked; see `raypath keys list`"),
        (
            ["keys", "create", "a", "--scopes", "predict,rule"],
            "--scopes got 'predict,rule'; give some of predict,embed,chat,admin",
        ),
        (["keys", "create", "a", "--expires", "soon"], "'soon' is not a date; give 30d or 2027-01-01"),
        (
            ["keys", "create", "a", "--expires", "2001-01-01"],
            "--expires 2001-01-01 has passed; give a day to come, or 30d",
        ),
        (
            ["keys", "create", "a", "--rate", "-1"],
            "key requests_per_minute: Input should be greater than or equal to 0",
        ),
        (
            ["keys", "create", "a", "--rate", "0"],
            "--rate got 0, which would be no limit; give at least 1, or leave it out",
        ),
        (
            ["keys", "create", "a", "--quota-tokens", "0"],
            "--quota-tokens got 0, which would be no limit; give at least 1, or leave it out",
        ),
        (["keys", "create", "a", "--models", ""], "--models got ''; give names of models such as a,b, or all"),
        (["keys", "create", "a", "--models", "a,,b"], "--models got 'a,,b'; give names of models such as a,b, or all"),
        (
            ["keys", "create", "a", "--models", "a b"],
            "key models.0: 'a b' is no name; begin with a letter or digit, then use letters, digits and . _ -, "
            "without other characters",
        ),
        (["keys", "create", "local"], "local is the name of this machine's own key; choose another name"),
        (["keys", "create", "Local"], "Local is the name of this machine's own key; choose another name"),
        (
            ["keys", "create", "<a>"],
            "key name: '<a>' is no name; begin with a letter or digit, then use letters, digits and . _ -, "
            "without other characters",
        ),
        (["usage", "--since", "ever"], "'ever' is not a date; give a date such as 2026-11-01"),
        (
            ["usage", "--csv", "no/such/folder.csv"],
            "cannot write no/such/folder.csv: No such file or directory; choose another file",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, told = _said(capsys, *args)
    assert (status, told) == (2, f"raypath: {says}\n")


def test_usage_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing was used" in _said(capsys, "usage")[1]
    access = tmp_path / "home" / "access"
    key, _ = KeyStore(access).create("anna", price_per_request=0.5)
    meter = UsageMeter(access / "usage", "r0", period=600)
    meter.record(key, Usage(1_200, 0.25, "reviews/1", generated_tokens=700, cached_tokens=300), 200, time.time())
    meter.record_rejected(None, time.time())
    meter.close()
    header, nobody, anna = _said(capsys, "usage")[1].splitlines()
    counted = ["tokens", "generated_tokens", "cached_tokens", "compute_seconds", "price"]
    assert header.split() == ["key", "name", "requests", "rejected", "errors", *counted]
    assert nobody.startswith("(no key)")
    assert anna.split() == [key.id, "anna", "1", "0", "0", "1,200", "700", "300", "0.2500", "0.5000"]
    assert "reviews/1" in _said(capsys, "usage", "--by", "model", "--since", "2026-01-01")[1]
    assert "nothing was used" in _said(capsys, "usage", "--since", "2999-01-01")[1]
    listed = [(row["group"], row["name"], row["requests"]) for row in json.loads(_said(capsys, "usage", "--json")[1])]
    assert listed == [("", "", 0), (key.id, "anna", 1)]
    file = tmp_path / "usage.csv"
    assert _said(capsys, "usage", "--by", "day", "--csv", str(file))[0] == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["requests"], row["tokens"], row["price"]) for row in rows] == [("1", "1200", "0.5")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_flags_are_these_and_no_others() -> None:
    commands = next(a for a in cli.parser()._actions if a.choices)
    keys = next(a for a in dict(commands.choices or {})["keys"]._actions if a.choices)  # type: ignore[call-overload]
    flags = {
        name: sorted(f for action in command._actions for f in action.option_strings if f not in ("-h", "--help"))
        for name, command in dict(keys.choices).items()
    }
    prices = ["--price-cached", "--price-generated", "--price-request", "--price-tokens"]
    quotas, rates = ["--quota-requests", "--quota-tokens"], ["--rate", "--rate-tokens"]
    assert flags == {
        "create": [
            "--certificate",
            "--debug",
            "--expires",
            "--json",
            "--models",
            "--no-secret",
            *prices,
            *quotas,
            *rates,
            "--role",
            "--scopes",
            "--tenant",
        ],
        "list": ["--debug", "--json"],
        "revoke": ["--debug", "--json"],
        "trust": [
            "--audience",
            "--claim",
            "--debug",
            "--models",
            *prices,
            *quotas,
            *rates,
            "--role",
            "--tenant",
            "--tenant-claim",
        ],
        "distrust": ["--debug"],
        "issuers": ["--debug"],
        "tenant": ["--debug", "--models"],
        "tenants": ["--debug"],
    }


def test_tenants_keep_their_models_unless_others_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no tenants yet" in _said(capsys, "keys", "tenants")[1]
    assert "has the models topics, prices" in _said(capsys, "keys", "tenant", "one", "--models", "topics,prices")[1]
    assert "has the models topics, prices" in _said(capsys, "keys", "tenant", "one")[1]
    status, _, told = _said(capsys, "keys", "tenant", "two", "--models", "prices")
    assert (status, told.count("\n")) == (2, 1)
    assert "model prices belongs to tenant one" in told
    assert _said(capsys, "keys", "tenant", "two", "--models", "all")[0] == 2
    assert _said(capsys, "keys", "tenant", "one", "--models", "topics")[0] == 0
    assert _said(capsys, "keys", "tenant", "two", "--models", "prices")[0] == 0
    assert "has no models" in _said(capsys, "keys", "tenant", "one", "--models", "")[1]
    made = json.loads(_said(capsys, "keys", "create", "anna", "--tenant", "two", "--role", "viewer", "--json")[1])
    assert (made["tenant"], made["role"], made["scopes"]) == ("two", "viewer", [])
    header, one, two = _said(capsys, "keys", "tenants")[1].splitlines()
    assert header.split() == ["tenant", "models", "keys"]
    assert (one.split(), two.split()) == (["one", "-", "0"], ["two", "prices", "1"])
    meter = UsageMeter(tmp_path / "home" / "access" / "usage", "r0")
    key = KeyStore(tmp_path / "home" / "access").list()[0]
    meter.record(key, Usage(tokens=7, model="prices"), 200, time.time())
    meter.record_rejected(None, time.time())
    meter.close()
    rows = json.loads(_said(capsys, "usage", "--tenant", "two", "--by", "model", "--json")[1])
    assert [(row["group"], row["tokens"]) for row in rows] == [("prices", 7)]
    assert [row["group"] for row in json.loads(_said(capsys, "usage", "--by", "tenant", "--json")[1])] == ["", "two"]
    assert "(no tenant)" in _said(capsys, "usage", "--by", "tenant")[1]
