"""Checks of a compliance review, each in both directions on a home that Raypath's own functions wrote."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raypath.components.compliance.checks.catalog import CHECKS
from raypath.components.compliance.profile import Profile
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.tracking.tags import FORGOTTEN
from raypath.deploy.api.security import backups, encryption
from raypath.deploy.api.security.evidence import protection
from raypath.deploy.api.security.evidence.collect import collect
from raypath.deploy.local import state
from raypath.deploy.store.audit import log
from raypath.deploy.store.audit.anchors import ELSEWHERE
from raypath.deploy.store.backup.encryption import create_key
from raypath.deploy.store.retention import write_days
from tests.deploy.api.security.reviewed_home import ReviewedHome, data_report, evaluation

Change = Callable[[ReviewedHome], object]
CSV = {"read__uri": "data.csv"}


def _keys(**expires: datetime | None) -> Change:
    def create(home: ReviewedHome) -> None:
        for name, when in expires.items():
            KeyStore(home.home / "access").create(name, expires=when)

    return create


def _listener(bind: str) -> Change:
    return lambda home: state.write(home.home, state.Services(public_bind=bind))


def _backup(verify: bool = False, damage: bool = False) -> Change:
    def make(home: ReviewedHome) -> None:
        key = home.folder / "key"
        create_key(key)
        place = home.folder / "place"
        backups.create_backup(str(place), key=key, home=home.home)
        if damage:
            block = next(path for path in (place / "blocks").rglob("*") if path.is_file())
            block.write_bytes(b"damaged")
        if verify:
            backups.verify_backup(str(place), key=key, home=home.home)

    return make


def _damage_log(home: ReviewedHome) -> None:
    log.record(home.home, "key.create", "anna")
    file = home.home / "audit" / "log.jsonl"
    file.write_bytes(file.read_bytes().replace(b"anna", b"anne"))


def _anchored(elsewhere: bool) -> Change:
    def anchor(home: ReviewedHome) -> None:
        if elsewhere:
            os.environ[ELSEWHERE] = str(home.folder / "anchors")
        log.record(home.home, "key.create", "anna")
        log.anchor_now(home.home)

    return anchor


def _old_predictions(home: ReviewedHome) -> None:
    write_days(home.home, {"predictions": 30})
    file = home.home / "predictions" / "topics" / "2020-01-01.a.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")


def _champion_of_forgotten(home: ReviewedHome) -> None:
    home.registered(1, champion=True, **{FORGOTTEN: "2"})


def _card(home: ReviewedHome) -> None:
    home.registered(1, champion=True)
    folder = home.folder / "export"
    folder.mkdir()
    (folder / "README.md").write_text("card")
    log.record(home.home, "model.export", "topics/1", detail={"format": "hf", "folder": str(folder)})


def _rollback(home: ReviewedHome) -> None:
    home.registered(1)
    home.registered(2, champion=True, previous=1)


def _forget(*outcomes: str) -> Change:
    return lambda home: [log.record(home.home, "subject.forget", "subject", outcome) for outcome in outcomes]


def _open_file(home: ReviewedHome) -> None:
    home.home.chmod(0o755)
    (home.home / "data.txt").write_text("x")
    (home.home / "data.txt").chmod(0o644)


LATER = datetime.now(UTC) + timedelta(days=30)
CASES: list[tuple[str, Change, str, str]] = [
    ("personal_data_known", lambda h: h.run(inspected=data_report(email=3)), "met", "email in 3 rows"),
    ("personal_data_known", lambda h: h.run(), "unknown", "no run has a data report"),
    ("redaction_on", lambda h: h.run(redact__enabled=True), "met", "redact.enabled is on in run"),
    ("redaction_on", lambda h: h.run(inspected=data_report(phone=2)), "not met", "found phone in 2 rows"),
    ("redaction_on", lambda h: h.run("multi_label"), "not met", "redact.enabled is off in run"),
    ("redaction_in_service", lambda h: h.run(redact__enabled=True), "met", "for 14 kinds"),
    ("redaction_in_service", lambda h: h.run(redact__enabled=True, serving=7), "partly", "a version of before run"),
    ("redaction_in_service", lambda h: h.run(), "not met", "redact.enabled is off"),
    ("redaction_in_service", lambda h: h.run(endpoint=False), "not applicable", "no run has put an endpoint"),
    ("texts_not_stored", lambda h: h.run(), "met", "serve.log_texts is off"),
    ("texts_not_stored", lambda h: h.run(serve__log_texts=True), "not met", "serve.log_texts is on"),
    ("texts_not_stored", lambda h: h.run(serve__log_texts=True, redact__enabled=True), "partly", "are redacted"),
    ("data_documented", lambda h: h.run(inspected=data_report()), "met", "has no errors"),
    ("data_documented", lambda h: h.run(inspected=data_report(errors=1)), "partly", "has 1 error"),
    ("data_documented", lambda h: h.run(), "not met", "no run has a data report"),
    ("files_private", lambda h: None, "met", "readable by their owner only"),
    ("files_private", _open_file, "not met", "can be read by other users"),
    ("transport_encrypted", lambda h: h.run(), "met", "listen on 127.0.0.1 only"),
    ("transport_encrypted", _listener("0.0.0.0:443 ssl crt /c.pem"), "met", "with TLS alone"),
    ("transport_encrypted", _listener("0.0.0.0:80"), "not met", "0.0.0.0:80 without TLS"),
    ("transport_encrypted", lambda h: h.run(cluster="http://ray:8265"), "unknown", "on a cluster"),
    ("keys_required", lambda h: h.run(), "met", "endpoints need a key"),
    ("keys_required", lambda h: h.run(serve__open=True), "not met", "the endpoint topics needs no key"),
    ("keys_limited", _keys(anna=LATER, ben=LATER), "met", "2 active keys, each with scopes and an expiry"),
    ("keys_limited", _keys(anna=None, ben=LATER), "partly", "1 of 2 active keys without an expiry, such as anna"),
    ("retention_set", lambda h: write_days(h.home, {"artifacts": 90, "scratch": 9, "predictions": 30}), "met", "30"),
    ("retention_set", lambda h: write_days(h.home, {"predictions": 30}), "partly", "no days for artifacts, scratch"),
    ("retention_set", lambda h: None, "not met", "retention.json has no days"),
    ("retention_applied", lambda h: write_days(h.home, {"predictions": 30}), "met", "nothing is older"),
    ("retention_applied", _old_predictions, "not met", "1 of predictions"),
    ("forgetting_possible", lambda h: h.run(**CSV, read__id="customer"), "met", "rows name their subject"),
    ("forgetting_possible", lambda h: h.run(**CSV), "not met", "neither read.id nor read.group"),
    ("forgetting_done", _forget("failed: DataError", "ok"), "met", "1 subject forgotten"),
    ("forgetting_done", _forget("ok", "failed: DataError"), "not met", "1 subject could not be forgotten"),
    ("forgetting_done", _champion_of_forgotten, "not met", "champion and learned from 2 forgotten subjects"),
    ("audit_verified", lambda h: log.record(h.home, "key.create", "anna"), "met", "verifies: 1 record"),
    ("audit_verified", _damage_log, "not met", "record 1 was changed"),
    ("audit_verified", lambda h: None, "unknown", "no records yet"),
    ("audit_anchored", _anchored(True), "met", "copies go to"),
    ("audit_anchored", _anchored(False), "partly", "in the home only"),
    ("audit_anchored", lambda h: None, "not met", "no anchors"),
    ("backup_recent", _backup(), "met", "the last backup is of"),
    ("backup_recent", lambda h: None, "not met", "no backup of this home"),
    ("backup_verified", _backup(verify=True), "met", "a backup was verified on"),
    ("backup_verified", _backup(), "not met", "was never verified"),
    ("backup_verified", _backup(verify=True, damage=True), "not met", "the last verification found 1 problem"),
    ("requests_logged", lambda h: h.run(serve__log_requests=True), "met", "serve.log_requests is on"),
    ("requests_logged", lambda h: h.run(), "partly", "serve.log_requests off"),
    ("logs_kept", lambda h: write_days(h.home, {"usage": 200}), "met", "183 days at least"),
    ("logs_kept", lambda h: write_days(h.home, {"usage": 90}), "not met", "deletes usage after 90 days"),
    ("models_signed", lambda h: h.registered(1, champion=True), "met", "1 version: signed by trusted keys"),
    ("models_signed", lambda h: h.registered(1, **{"raypath.task": "x"}), "not met", "changed after it was signed"),
    ("model_card", _card, "met", "README.md"),
    ("model_card", lambda h: h.registered(1, champion=True), "partly", "a description in the registry"),
    ("accuracy_measured", lambda h: h.run(evaluated=evaluation()), "met", "accuracy 0.900 (0.850 to 0.950)"),
    ("accuracy_measured", lambda h: h.run(), "not met", "no run has evaluated"),
    ("confidence_shown", lambda h: h.run(evaluated=evaluation(("a", "b", False))), "met", "accuracy by confidence"),
    ("confidence_shown", lambda h: h.run(evaluated=evaluation()), "unknown", "no confidence of predictions"),
    ("confidence_shown", lambda h: h.run(), "not met", "no run has evaluated"),
    ("rollback_possible", _rollback, "met", "returns to version 1"),
    ("rollback_possible", lambda h: h.registered(1, champion=True), "partly", "no signed champion before it"),
    ("output_filtered", lambda h: h.run("chat", serve__filter_output="all"), "met", "is all in run"),
    ("output_filtered", lambda h: h.run("chat", serve__filter_output="secrets"), "partly", "personal data passes"),
    ("output_filtered", lambda h: h.run("chat"), "not met", "serve.filter_output is off"),
    ("output_filtered", lambda h: h.run(), "not applicable", "no language model"),
    ("stated", lambda h: None, "unknown", "only a person"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReviewedHome:
    monkeypatch.setenv(ELSEWHERE, "")
    monkeypatch.delenv("RAYPATH_SIGNING_KEY")
    return ReviewedHome(tmp_path)


@pytest.mark.parametrize(("check", "change", "outcome", "evidence"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_a_check_answers_from_evidence(
    home: ReviewedHome, check: str, change: Change, outcome: str, evidence: str
) -> None:
    change(home)
    found = CHECKS[check](collect(home.home), Profile())
    assert (str(found.outcome), evidence in found.evidence) == (outcome, True), found
    assert "\n" not in found.evidence
    assert found.outcome in ("met", "not applicable") or found.remedy or found.outcome == "unknown"


def test_slices_show_groups_that_are_worse(home: ReviewedHome) -> None:
    answers = []
    for slices in ((), (("gender", "f", False),), (("gender", "f", True), ("words", "1-5", True))):
        home.run(evaluated=evaluation(*slices), read__slices=("gender",))
        answers.append(CHECKS["slices_measured"](collect(home.home), Profile()))
    assert [str(each.outcome) for each in answers] == ["not met", "met", "partly"]
    assert answers[2].evidence.endswith("worse than the others: gender=f")


def test_an_old_backup_does_not_count(home: ReviewedHome) -> None:
    _backup(verify=True)(home)
    then = datetime.now(UTC) + timedelta(days=100)
    found = collect(home.home, then)
    assert CHECKS["backup_recent"](found, Profile()).outcome == "not met"
    assert CHECKS["backup_recent"](found, Profile(backup_days=101)).outcome == "met"
    assert CHECKS["backup_verified"](found, Profile()).outcome == "partly"


def test_a_profile_is_not_believed_against_the_data_report(home: ReviewedHome) -> None:
    home.run(inspected=data_report(email=3))
    denied = Profile(personal_data=False)
    assert CHECKS["personal_data_known"](collect(home.home), denied).outcome == "not met"
    assert CHECKS["profile_answered"](collect(home.home), denied).outcome == "partly"


def test_disks_are_encrypted_where_all_devices_below_are(tmp_path: Path, home: ReviewedHome) -> None:
    number = home.home.stat().st_dev
    device = tmp_path / "dev" / f"{os.major(number)}:{os.minor(number)}"
    assert not protection.disk_is_encrypted(home.home, tmp_path / "dev")
    for name, uuid in (("a", "CRYPT-LUKS2-1"), ("b", "LVM-2")):
        (device / "slaves" / name / "dm").mkdir(parents=True)
        (device / "slaves" / name / "dm" / "uuid").write_text(uuid)
    assert not protection.disk_is_encrypted(home.home, tmp_path / "dev")
    (device / "slaves" / "b" / "dm" / "uuid").write_text("CRYPT-PLAIN-1")
    assert protection.disk_is_encrypted(home.home, tmp_path / "dev")
    evidence = collect(home.home)
    plain = evidence.model_copy(update={"store": evidence.store.model_copy(update={"encrypted": None})})
    coded = evidence.model_copy(update={"store": evidence.store.model_copy(update={"encrypted": True})})
    assert CHECKS["store_encrypted"](plain, Profile()).outcome == "unknown"
    assert CHECKS["store_encrypted"](coded, Profile()).outcome == "met"


def test_encryption_is_seen_and_evidence_is_read_through_it(home: ReviewedHome, tmp_path: Path) -> None:
    home.run(inspected=data_report(email=3))
    assert CHECKS["store_encrypted"](collect(home.home), Profile()).outcome == "unknown"
    encryption.init_encryption(key=tmp_path / "master.key", home=home.home)
    found = CHECKS["store_encrypted"](collect(home.home), Profile())
    assert (found.outcome, "none in plaintext, key by file" in found.evidence) == ("met", True)
    assert "email in 3 rows" in CHECKS["personal_data_known"](collect(home.home), Profile()).evidence
    write_days(home.home, {"artifacts": 90})
    assert CHECKS["retention_applied"](collect(home.home), Profile()).outcome == "partly"
    assert CHECKS["forgetting_possible"](collect(home.home), Profile()).outcome == "unknown"
    _old_predictions(home)
    found = CHECKS["store_encrypted"](collect(home.home), Profile())
    assert (found.outcome, found.remedy) == ("partly", "raypath encryption init")
    assert "1 of predictions" in found.evidence


def test_every_check_is_tested() -> None:
    apart = {"slices_measured", "profile_answered", "store_encrypted"}
    assert {case[0] for case in CASES} | apart == set(CHECKS)
