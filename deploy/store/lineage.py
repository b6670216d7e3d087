"""Steps that made a registered version, found backwards through the records of a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from raypath.deploy.store.store import Record, Store, placed

_INPUT = "input "
BRANCH = "inspect"
"""Step whose result no other step uses; it belongs to a version by its input."""


def steps_behind(store: Store, name: str, version: int) -> dict[str, Record]:
    """Return the records of the steps that made a version, by the step's function; empty if it was not made here.

    Of several steps with the same content the first is taken, which has made it; the others have only passed it on.
    The URIs in their artifacts are folders of this store.
    """
    records = sorted(_records(store), key=lambda each: each.started)
    made_by: dict[str, Record] = {}
    for each in records:
        for digest in artifact_digests(each.artifact):
            made_by.setdefault(digest, each)
    released = [each for each in records if _releases(each, name, version)]
    found: dict[str, Record] = {}
    waiting = released[-1:]
    while waiting:
        each = waiting.pop()
        if _function(each) in found:
            continue
        found[_function(each)] = each
        waiting += [made_by[digest] for digest in _inputs(each) if digest in made_by]
    known = {digest for each in found.values() for digest in artifact_digests(each.artifact)}
    branch = [each for each in records if _function(each) == BRANCH and known & set(_inputs(each))]
    if branch:
        found[BRANCH] = branch[-1]
    return {
        step: each.model_copy(update={"artifact": placed(each.artifact, store.root)}) for step, each in found.items()
    }


def _records(store: Store) -> Iterator[Record]:
    for path in (store.place / "records").glob("*.json"):
        with suppress(OSError, ValueError, ValidationError):
            yield Record.model_validate(json.loads(store.read_stored(path)))


def _releases(record: Record, name: str, version: int) -> bool:
    made = record.artifact
    return "alias" in made and (made.get("name"), made.get("version")) == (name, version)


def _function(record: Record) -> str:
    return record.component.rpartition(":")[2]


def _inputs(record: Record) -> Iterable[str]:
    return [value for name, value in record.key_inputs.items() if name.startswith(_INPUT)]


def artifact_digests(artifact: Any) -> Iterator[str]:
    """Yield the digests in an artifact's JSON, those of nested artifacts too."""
    if isinstance(artifact, dict):
        if artifact.get("digest"):
            yield str(artifact["digest"])
        for value in artifact.values():
            yield from artifact_digests(value)
