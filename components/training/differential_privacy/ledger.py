"""Private trainings on the same data, over all models of a project: privacy/spent/DATA/TRAINING.json in its home.

A training is recorded before its first step, with all the steps that it plans: what is interrupted and never resumed
counts in full. Data are the same if their URI is, or the digest of the training split.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.errors import DataError
from raypath.components.core.files import write_atomically
from raypath.components.models.metadata import PrivacyEvent, PrivacyRecord
from raypath.components.privacy.keys import key_folder

FOLDER = "spent"


def ledger_folder(signing: Path | None) -> Path:
    """Return the folder of the ledger in a project's home."""
    return key_folder(signing) / FOLDER


@dataclass(frozen=True)
class Ledger:
    """Record of the trainings on one dataset. source: its URI; digest: of the training split."""

    folder: Path
    source: str
    digest: str

    def events(self, but: str = "") -> list[PrivacyEvent]:
        """Return the events of all trainings on these data, except one by name."""
        return self._entries(but)

    def count(self, but: str = "") -> int:
        """Return the number of trainings on these data, except one by name."""
        return len(self._entries(but))

    def add(self, name: str, record: PrivacyRecord) -> None:
        """Record the last event of a training, in place of an earlier record of the same name."""
        place = self.folder / hashlib.sha256(self.source.encode()).hexdigest()[:16]
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        facts = {"source": self.source, "digest": self.digest, "event": record.events[-1].model_dump()}
        write_atomically(place / f"{name}.json", json.dumps(facts, indent=1))

    def _entries(self, but: str) -> list[PrivacyEvent]:
        found = []
        for path in sorted(self.folder.glob("*/*.json")):
            try:
                facts = json.loads(path.read_text(encoding="utf-8"))
                same = facts["source"] == self.source or facts["digest"] == self.digest
                event = PrivacyEvent.model_validate(facts["event"])
            except (ValueError, KeyError, TypeError):
                what = f"{path} is no record of a private training"
                raise DataError(what, fix="restore it from a backup: without it epsilon is not known") from None
            if same and path.stem != but:
                found.append(event)
        return found
