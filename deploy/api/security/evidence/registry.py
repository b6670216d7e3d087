"""Evidence from the home's model registry: signatures and cards of versions.

The tables of MLflow's database are read directly, so that no server has to run.
"""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from raypath.components.compliance.evidence import VersionEvidence
from raypath.components.core.errors import UserError
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import PublicKey, trusted_keys
from raypath.components.registry.signing.records import verify_promotion, verify_version
from raypath.components.registry.tags import CHAMPION
from raypath.components.tracking.tags import FORGOTTEN, PREVIOUS_CHAMPION
from raypath.deploy.store.audit.records import AuditRecord
from raypath.deploy.store.backup.sources import DATABASE

CARD = "README.md"
_VERSIONS = (
    "select name, version, description from model_versions where current_stage != 'Deleted_Internal' "
    "order by name, version"
)
_TAGS = "select name, version, key, value from model_version_tags"
_ALIASES = "select name, version from registered_model_aliases where alias = ?"


def versions_of(home: Path, log: Sequence[AuditRecord]) -> tuple[VersionEvidence, ...] | None:
    """Return the registered versions; None where the registry is elsewhere, or cannot be read."""
    if os.environ.get("RAYPATH_REGISTRY"):
        return None
    if not (home / DATABASE).is_file():
        return ()
    try:
        keys = trusted_keys(home / "signing")
        with closing(sqlite3.connect(f"file:{home / DATABASE}?mode=ro", uri=True, timeout=5)) as database:
            found = database.execute(_VERSIONS).fetchall()
            champions = set(database.execute(_ALIASES, (CHAMPION,)).fetchall())
            tags: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
            for name, version, key, value in database.execute(_TAGS):
                tags[name, version][key] = value or ""
    except (sqlite3.Error, UserError):
        return None
    cards = _cards(log)
    return tuple(
        _version(name, version, description or "", tags[name, version], (name, version) in champions, keys, cards)
        for name, version, description in found
    )


def _version(
    name: str,
    version: int,
    description: str,
    tags: dict[str, str],
    champion: bool,
    keys: dict[str, PublicKey],
    cards: dict[str, str],
) -> VersionEvidence:
    problem = ""
    try:
        verify_version(name, version, tags, keys)
        if champion:
            verify_promotion(name, version, tags, keys)
    except Untrusted as error:
        problem = str(error)
    return VersionEvidence(
        name=name,
        version=version,
        champion=champion,
        problem=problem,
        previous=int(tags.get(PREVIOUS_CHAMPION) or 0),
        described=bool(description.strip()),
        card=cards.get(f"{name}/{version}", ""),
        forgotten=int(tags.get(FORGOTTEN) or 0),
    )


def _cards(log: Sequence[AuditRecord]) -> dict[str, str]:
    """Return the model cards of exports that are still there, by NAME/VERSION."""
    exports = [each for each in log if (each.action, each.outcome) == ("model.export", "ok")]
    files = {each.target: Path(str(each.detail.get("folder", ""))) / CARD for each in exports}
    return {target: str(file) for target, file in files.items() if file.is_file()}
