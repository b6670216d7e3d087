"""How a trial of a population becomes a clone of a better one, so that a kill at any moment loses neither.

A trial hands on its checkpoints in a staged folder. Who takes them over puts them, with a note of the settings that it
goes on with, in the place of its own in one rename; the search reads the note when it is run again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from ray import tune as ray_tune

from raypath.components.core.files import write_atomically
from raypath.components.training.checkpoints import checkpoint as checkpoints
from raypath.components.tuning.journal import TrialJournal
from raypath.components.tuning.search_space import Values

OWNER, ADOPTED = "trial.json", "adopted.json"


@dataclass(frozen=True)
class Adopted:
    """What a trial goes on with: the weights of trial `clone`, and settings of its own."""

    clone: str
    values: Values


def stage(folder: Path, name: str) -> Path:
    """A folder with the newest checkpoints of a trial, as links: what Ray Tune is given to keep and to hand on."""
    place = folder / "rung"
    shutil.rmtree(place, ignore_errors=True)
    for kind in ("last", "best"):
        newest = checkpoints.latest(folder / kind)
        if newest is not None:
            shutil.copytree(newest, place / kind / newest.name, copy_function=_link)
    (place / OWNER).write_text(json.dumps(name), encoding="utf-8")
    return place


def adopt(folder: Path, name: str, values: Values) -> str:
    """Take over the checkpoints that Ray Tune gives to trial `name`; returns the trial they are of, "" for its own."""
    given = ray_tune.get_checkpoint()
    if given is None:
        return ""
    aside = _aside(folder)
    with given.as_directory() as place:
        owner = str(json.loads((Path(place) / OWNER).read_text(encoding="utf-8")))
        if owner == name:
            return ""
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(place, aside)
    # The note comes last: a folder that has it is whole.
    write_atomically(aside / ADOPTED, json.dumps(asdict(Adopted(owner, values))))
    gone = folder.with_name(f".{name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
    aside.rename(folder)
    shutil.rmtree(gone, ignore_errors=True)
    return owner


def catch_up(journal: TrialJournal, scratch: Path) -> None:
    """Tell the journal what trials took over and, killed before their next rung, could not say."""
    for entry in journal.open():
        found = _adopted(scratch / f"trial-{entry.trial:02d}")
        if found is not None and (entry.values, entry.clones[-1:]) != (found.values, [found.clone]):
            journal.adopt(entry.trial, found.values, found.clone)


def _adopted(folder: Path) -> Adopted | None:
    """The note in a trial's folder, which is first put in its place where a kill kept it aside."""
    aside = _aside(folder)
    if not folder.exists() and (aside / ADOPTED).is_file():
        aside.rename(folder)
    note = folder / ADOPTED
    return Adopted(**json.loads(note.read_text(encoding="utf-8"))) if note.is_file() else None


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}")


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
