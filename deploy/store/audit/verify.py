"""Verification of the audit log: records that were changed, removed, added or reordered, and anchors that disagree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.registry.signing import envelope
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import PublicKey, trusted_keys
from raypath.deploy.store.audit.anchors import TYPE, Anchor, stored_anchors
from raypath.deploy.store.audit.log import read_head, reading
from raypath.deploy.store.audit.records import GENESIS, LOG, canonical, digest_of, folder_of, log_id


class Problem(BaseModel):
    """Place at which the log is not as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    where: str
    """Line of the log, or name of the anchor."""
    what: str


class Verification(BaseModel):
    """Outcome of a verification."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    records: int
    anchors: int
    """Anchors that agree with the log."""
    anchored: int
    """Number of the last record that an anchor covers; 0 for none."""
    problems: list[Problem]
    """Empty for a log that is as it was written."""


def verify(home: Path, place: str = "") -> Verification:
    """Verify log, head and anchors.

    place: folder or s3://BUCKET/PREFIX with copies of the anchors; default $RAYPATH_AUDIT_ANCHORS.
    Raises RaypathError for anchors that cannot be read.
    """
    chain = _Chain()
    with reading(home):
        problems = list(chain.problems_of(folder_of(home) / LOG))
        head = read_head(home)
    if (head.n, head.hash) not in chain.ends:
        what = f"the log ends with record {chain.n}, but record {head.n} was the last one written"
        problems.append(Problem(where=f"line {chain.line}", what=what))
    keys, agreeing = trusted_keys(home / "signing"), []
    for where, signed in stored_anchors(home, place):
        found = _anchor(signed, keys)
        if isinstance(found, Anchor) and (what := chain.contradiction(found)) == "":
            agreeing.append(found.n)
        else:
            problems.append(Problem(where=where, what=found if isinstance(found, str) else what))
    return Verification(records=chain.line, anchors=len(agreeing), anchored=max(agreeing, default=0), problems=problems)


def _anchor(signed: Any, keys: Mapping[str, PublicKey]) -> Anchor | str:
    """Return the content of a signed anchor, or why it is not to be trusted."""
    try:
        return Anchor.model_validate_json(envelope.verify(signed, TYPE, keys))
    except Untrusted as error:
        return f"this anchor {error}"
    except ValidationError:
        return "this anchor has another content"


class _Chain:
    """Reader of the log that follows the hashes. After a problem it continues from what the line says."""

    def __init__(self) -> None:
        self.line, self.n, self.hash, self.log = 0, 0, GENESIS, ""
        self.hashes: dict[int, str] = {}
        """Hash by number of the record."""
        self.ends = {(0, GENESIS)}
        """Number and hash of the last record, and of the one before, which is the head after a crash between both."""

    def problems_of(self, file: Path) -> Iterator[Problem]:
        if not file.exists():
            return
        with open(file, "rb") as lines:
            for text in lines:
                if not text.endswith(b"\n"):
                    return  # a crash has left it unfinished; the next record replaces it
                self.line += 1
                before = (self.n, self.hash)
                if what := self._problem(text):
                    yield Problem(where=f"line {self.line}", what=what)
                self.ends = {before, (self.n, self.hash)}

    def contradiction(self, anchor: Anchor) -> str:
        """Return how an anchor disagrees with the log, "" if it agrees."""
        if anchor.log != self.log:
            return f"this anchor of {anchor.day} is of another log; was the log replaced?"
        if self.hashes.get(anchor.n) != anchor.hash:
            return f"record {anchor.n} had another hash on {anchor.day} than the log has now"
        return ""

    def _problem(self, text: bytes) -> str:
        """Return what is wrong with the next line, "" for a right one."""
        try:
            fields = json.loads(text)
            n, previous, given = int(fields["n"]), str(fields["previous"]), str(fields["hash"])
            made = digest_of(fields)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return "this line is no record"
        before, last, self.n, self.hash = self.hash, self.n, n, given
        self.log = self.log or log_id(given)
        self.hashes[n] = made
        if made != given or text != canonical(fields) + b"\n":
            return f"record {n} was changed"
        if n > last + 1:
            return f"records {last + 1} to {n - 1} are missing" if n > last + 2 else f"record {last + 1} is missing"
        if n != last + 1:
            return f"record {n} follows record {last}"
        return "" if previous == before else f"record {n} was not written after the record before it"
