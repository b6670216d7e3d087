"""Population based training: replace a trial by a clone of a better one, without losing either in a crash.

A trial publishes its checkpoints in a staged folder. A clone puts them in place of its own in one rename, together with
a file of the settings it continues with, which the search reads when it resumes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from ray import tune as ray_tune

from raypath.components.core.files import write_atomically
from raypath.components.training.checkpoints import checkpoint
from raypath.components.tuning.journal import TrialJournal
from raypath.components.tuning.search_space import Values

OWNER, ADOPTED = "trial.json", "adopted.json"


@dataclass(frozen=True)
class Adopted:
    """State of a clone: the weights of trial `clone`, and its own settings."""

    clone: str
    values: Values


def stage(folder: Path, name: str) -> Path:
    """Stage the newest checkpoints of a trial in a folder of hard links, which Ray Tune keeps and passes on."""
    place = folder / "rung"
    shutil.rmtree(place, ignore_errors=True)
    for kind in ("last", "best"):
        newest = checkpoint.latest(folder / kind)
        if newest is not None:
            shutil.copytree(newest, place / kind / newest.name, copy_function=_link)
    (place / OWNER).write_text(json.dumps(name), encoding="utf-8")
    return place


def adopt(folder: Path, name: str, values: Values) -> str:
    """Take over the checkpoints that Ray Tune gives to trial `name`; return the trial they came from, empty for its
    own."""
    given = ray_tune.get_checkpoint()
    if given is None:
        return ""
    temporary = _temporary(folder)
    with given.as_directory() as place:
        owner = str(json.loads((Path(place) / OWNER).read_text(encoding="utf-8")))
        if owner == name:
            return ""
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(place, temporary)
    # This file is written last: a folder that has it is complete.
    write_atomically(temporary / ADOPTED, json.dumps(asdict(Adopted(owner, values))))
    gone = folder.with_name(f".{name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
    temporary.rename(folder)
    shutil.rmtree(gone, ignore_errors=True)
    return owner


def catch_up(journal: TrialJournal, scratch: Path) -> None:
    """Record clones that crashed before their next rung."""
    for entry in journal.open():
        found = _adopted(scratch / f"trial-{entry.trial:02d}")
        if found is not None and (entry.values, entry.clones[-1:]) != (found.values, [found.clone]):
            journal.adopt(entry.trial, found.values, found.clone)


def _adopted(folder: Path) -> Adopted | None:
    """Read a trial's clone state, after finishing an interrupted rename."""
    temporary = _temporary(folder)
    if not folder.exists() and (temporary / ADOPTED).is_file():
        temporary.rename(folder)
    note = folder / ADOPTED
    return Adopted(**json.loads(note.read_text(encoding="utf-8"))) if note.is_file() else None


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}")


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
