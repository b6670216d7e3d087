"""Compliance: review a project by a regime, and state what only a person can know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raypath.components.compliance.profile import Profile
from raypath.components.compliance.regime import load_regime, topics
from raypath.components.compliance.review import Review
from raypath.components.compliance.review import review as review_by
from raypath.components.compliance.statements import Statement, digest_of, sign
from raypath.components.core.errors import ParamsError
from raypath.components.core.files import file_digest, write_atomically
from raypath.components.registry.signing.keys import ensure_key, signing_key
from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.api.results import Result
from raypath.deploy.api.security.evidence.collect import collect
from raypath.deploy.api.security.evidence.stated import ACTION, file_of
from raypath.deploy.execution.overrides import from_file
from raypath.deploy.store.audit.log import audited

PROFILE = "compliance.yaml"
"""File of the project's answers, beside the home or in the current folder."""
_MOST_DAYS = 3_650


class SignedStatement(Result):
    """Statement of a person that was signed and recorded."""

    topic: str
    text: str
    by: str
    signed: datetime
    until: datetime
    document: str
    """Path of the file that it is about, relative to the folder of the home; "" for none."""
    file: str
    """File of the signed statement."""


def review(
    regime: str,
    changes: Mapping[str, Any] | None = None,
    *,
    profile: str | Path | None = None,
    home: str | Path | None = None,
) -> Review:
    """Review a project by a regime: an outcome for each requirement, with the evidence. No legal advice.

    Nothing is started and nothing is changed.

    Args:
        regime: gdpr, eu-ai-act, pipl, cn-genai or hipaa.
        changes: Answers of the project by name, such as `{"children": False}`, over those of the file.
        profile: YAML file with the project's answers; default compliance.yaml beside the home, or here.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        ParamsError: Unknown regime or answer.
        UserError: A folder that is no home.

    Example:
        found = raypath.review("gdpr", {"children": False})
        print([(item.article, item.remedy) for item in found.failed("high")])
    """
    folder, wanted = home_folder(home), load_regime(regime)
    with private_process():
        return review_by(wanted, collect(folder), read_profile(folder, profile, changes or {}))


def read_profile(home: Path, file: str | Path | None, changes: Mapping[str, Any]) -> Profile:
    """Return the project's answers: those of a file, then the changes. Raises ParamsError."""
    defaults = (home.parent / PROFILE, Path(PROFILE))
    path = Path(file) if file else next((each for each in defaults if each.is_file()), None)
    return Profile().override({**from_file(path), **changes})


def state(
    topic: str,
    text: str,
    *,
    by: str,
    days: int = 365,
    document: str | Path | None = None,
    home: str | Path | None = None,
) -> SignedStatement:
    """State what no check can find out. The statement is signed with the project's key, recorded, and expires.

    Args:
        topic: Such as dpia or breach-plan; `raypath comply topics` lists them.
        text: The statement, 10 to 4,000 characters.
        by: Name of the person who states it.
        days: Days until it has to be made again.
        document: File that it is about. When the file changes, the statement has to be made again.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        ParamsError: Unknown topic, no such document, or a text, name or number of days that is out of range.
        PlatformError: The audit log cannot be written.
    """
    folder = home_folder(home)
    made = _statement(folder, topic, text, by, days, document)
    with private_process():
        file_of(folder, topic).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        ensure_key(folder / "signing")
        signed = sign(signing_key(folder / "signing"), made)
        detail = {"digest": digest_of(signed), "by": by, "until": f"{made.until:%Y-%m-%d}", "document": made.document}
        with audited(folder, ACTION, topic, detail):
            write_atomically(file_of(folder, topic), json.dumps(signed))
    fields = made.model_dump(include=set(SignedStatement.model_fields))
    return SignedStatement(**fields, file=str(file_of(folder, topic)))


def _statement(home: Path, topic: str, text: str, by: str, days: int, document: str | Path | None) -> Statement:
    if topic not in topics():
        raise ParamsError(f"there is no topic {topic}", fix="see `raypath comply topics`")
    if not 1 <= days <= _MOST_DAYS:
        raise ParamsError(f"a statement cannot be valid for {days} days", fix=f"give 1 to {_MOST_DAYS} days")
    now = datetime.now(UTC).replace(microsecond=0)
    name, digest = _document(home, document) if document else ("", "")
    try:
        return Statement(
            topic=topic,
            text=" ".join(text.split()),
            by=" ".join(by.split()),
            signed=now,
            until=now + timedelta(days=days),
            document=name,
            document_digest=digest,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ParamsError(f"--{first['loc'][0]}: {first['msg']}", fix=topics()[topic].question) from None


def _document(home: Path, document: str | Path) -> tuple[str, str]:
    """Return path and digest of a document below the folder of the home. Raises ParamsError."""
    file = Path(document).expanduser().resolve()
    if not file.is_file() or not file.is_relative_to(home.parent):
        raise ParamsError(f"no document {document} below {home.parent}", fix="give a file of the project")
    return str(file.relative_to(home.parent)), file_digest(file)
