"""Signed statements: they answer where a check finds nothing; one that is changed, replayed or gone is rejected."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raypath.components.compliance import statements
from raypath.components.compliance.evidence import StatementEvidence
from raypath.components.compliance.outcome import Answer, Outcome
from raypath.components.compliance.profile import Profile
from raypath.components.compliance.regime import load_regime
from raypath.components.compliance.review import answer
from raypath.components.core.errors import ParamsError
from raypath.components.registry.signing import keys
from raypath.deploy.api.security import compliance
from raypath.deploy.api.security.evidence.collect import collect
from raypath.deploy.api.security.evidence.stated import file_of
from raypath.deploy.store.audit import log
from raypath.deploy.store.audit.verify import verify

QUESTION = "where the assessment of the impact on data protection is, what it found, and who decided"
TEXT = "Assessed with the works council; see the record of May."


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(keys.PRIVATE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def dpia(home: Path, at: datetime | None = None) -> StatementEvidence | None:
    return collect(home, at).statements.get("dpia")


def impact(home: Path, at: datetime | None = None) -> Answer:
    """The answer for the item of the GDPR that asks for it."""
    item = next(each for each in load_regime("gdpr").items if each.statement == "dpia")
    return answer(item, collect(home, at), Profile())


def rejected(home: Path) -> str:
    found = impact(home)
    assert found.outcome == "not met", found
    return found.evidence


def test_a_statement_answers_an_item_until_it_expires(home: Path) -> None:
    remedy = 'raypath comply state dpia --text "..." --by NAME --valid 365d'
    assert impact(home) == Answer(Outcome.UNKNOWN, f"nobody has stated dpia: {QUESTION}", remedy)
    made = compliance.state("dpia", TEXT, by="Ana Novak", days=30, home=home)
    assert made.until - made.signed == timedelta(days=30)
    found = impact(home)
    assert found.outcome == "met"
    assert found.evidence.startswith(
        f"stated by Ana Novak on {made.signed:%Y-%m-%d}, until {made.until:%Y-%m-%d}: {TEXT}"
    )
    assert file_of(home, "dpia").stat().st_mode & 0o077 == 0
    late = impact(home, datetime.now(UTC) + timedelta(days=31))
    assert (late.outcome, "has expired on" in late.evidence) == ("not met", True)
    [record] = [each for each in log.read(home) if each.action == "comply.state"]
    assert (record.target, record.detail["by"]) == ("dpia", "Ana Novak")
    assert TEXT not in record.line().decode()
    assert verify(home).problems == []


def test_a_changed_statement_is_rejected(home: Path) -> None:
    compliance.state("dpia", TEXT, by="Ana Novak", home=home)
    file = file_of(home, "dpia")
    signed = json.loads(file.read_text())
    payload = json.loads(statements.envelope.verify(signed, statements.TYPE, keys.trusted_keys(home / "signing")))
    forged = {**payload, "until": "2999-01-01T00:00:00Z"}
    text = statements.envelope.dumps(forged)
    file.write_text(json.dumps({**signed, "payload": base64.b64encode(text).decode()}))
    assert "has a signature that does not match" in rejected(home)
    file.write_text("{")
    assert "cannot be read" in rejected(home)
    file.unlink()
    assert "is missing" in rejected(home)


def test_a_statement_with_another_key_or_outside_of_the_log_is_rejected(home: Path, tmp_path: Path) -> None:
    compliance.state("dpia", TEXT, by="Ana Novak", home=home)
    keys.ensure_key(tmp_path / "other")
    now = datetime.now(UTC)
    own = statements.Statement(topic="dpia", text=TEXT, by="Eve", signed=now, until=now + timedelta(days=9))
    file_of(home, "dpia").write_text(json.dumps(statements.sign(keys.signing_key(tmp_path / "other"), own)))
    assert "which is not trusted here" in rejected(home)
    file_of(home, "dpia").write_text(json.dumps(statements.sign(keys.signing_key(home / "signing"), own)))
    assert "not the latest statement on this topic in the audit log" in rejected(home)


def test_an_older_statement_or_that_of_another_topic_is_rejected(home: Path) -> None:
    compliance.state("dpia", TEXT, by="Ana Novak", home=home)
    first = file_of(home, "dpia").read_text()
    compliance.state("dpia", f"{TEXT} It was withdrawn.", by="Ana Novak", home=home)
    assert impact(home).outcome == "met"
    file_of(home, "dpia").write_text(first)
    assert "not the latest statement" in rejected(home)
    compliance.state("purpose", TEXT, by="Ana Novak", home=home)
    file_of(home, "dpia").write_text(file_of(home, "purpose").read_text())
    assert "it is about purpose" in rejected(home)


def test_a_document_may_not_change(home: Path, tmp_path: Path) -> None:
    (tmp_path / "dpia.md").write_text("Impact: low.")
    made = compliance.state("dpia", TEXT, by="Ana Novak", document="dpia.md", home=home)
    assert made.document == "dpia.md"
    assert "(dpia.md)" in impact(home).evidence
    (tmp_path / "dpia.md").write_text("Impact: none.")
    assert "dpia.md was changed after it was signed" in rejected(home)
    (tmp_path / "dpia.md").unlink()
    assert "dpia.md is missing" in rejected(home)


def test_a_statement_does_not_overrule_what_a_check_found(home: Path) -> None:
    item = next(each for each in load_regime("gdpr").items if each.check == "transport_encrypted")
    compliance.state("tls", "The ingress ends TLS, renewed by cert-manager.", by="Ana Novak", home=home)
    evidence = collect(home).model_copy(update={"listener": "0.0.0.0:80"})
    assert answer(item, evidence, Profile()).outcome == "not met"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topic": "weather"}, "there is no topic weather; see `raypath comply topics`"),
        ({"text": "Yes."}, "--text: String should have at least 10 characters; Where the assessment"),
        ({"by": " "}, "--by: String should have at least 2 characters"),
        ({"days": 0}, "valid for 0 days; give 1 to 3650 days"),
        ({"document": "none.md"}, "no document none.md below"),
        ({"document": "/etc/hostname"}, "no document /etc/hostname below"),
    ],
)
def test_statements_that_are_not_signed(home: Path, change: dict[str, Any], message: str) -> None:
    given = {"topic": "dpia", "text": TEXT, "by": "Ana Novak", **change}
    with pytest.raises(ParamsError) as error:
        compliance.state(given.pop("topic"), given.pop("text"), home=home, **given)
    assert message in str(error.value)
    assert list(log.read(home)) == []
    assert dpia(home) is None
