"""Repository of backups at one place.

backup.json              format, and the repository's key, wrapped by a master key
blocks/ab/ab12...        encrypted parts of files, by the keyed hash of their contents
snapshots/TIME-ID        encrypted list of a snapshot's files; written last, so that one that exists is complete
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from raypath.components.core.errors import DataError, UserError
from raypath.deploy.store.backup.encryption import MasterKey, RepositoryKey
from raypath.deploy.store.backup.places import Place, open_place

BLOCK = 4 << 20
"""Bytes of a file in one block."""
_CONFIG = "backup.json"


class StoredFile(BaseModel):
    """File, or empty folder, of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Relative to the home."""
    mode: int
    size: int
    modified: int
    """Nanoseconds since 1970."""
    blocks: tuple[str, ...]
    folder: bool = False
    """An empty folder."""


class Snapshot(BaseModel):
    """State of a home at one time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    created: AwareDatetime
    home: str
    """Path of the home."""
    version: str
    """Of Raypath."""
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Repository:
    """Blocks and snapshots at a place, under one key."""

    def __init__(self, place: Place, key: RepositoryKey) -> None:
        self.place = place
        self._key = key

    def name(self, data: bytes) -> str:
        """Return the name under which a block is stored."""
        return self._key.name(data)

    def stored(self) -> set[str]:
        """Return the names of all stored blocks."""
        return {name.rpartition("/")[2] for name in self.place.names("blocks")}

    def write(self, name: str, data: bytes) -> None:
        """Store a block under its name."""
        self.place.create(_block(name), self._key.seal(name, data))

    def read(self, name: str) -> bytes:
        """Return a block. Raises DataError for one that is missing or was altered."""
        sealed = self.place.get(_block(name))
        if sealed is None:
            raise DataError(f"block {name[:16]} is missing in {self.place.address}", fix=_ANOTHER)
        try:
            data = self._key.open(name, sealed)
        except ValueError:
            raise DataError(f"block {name[:16]} in {self.place.address} is corrupt", fix=_ANOTHER) from None
        if self._key.name(data) != name:
            raise DataError(f"block {name[:16]} in {self.place.address} has other contents", fix=_ANOTHER)
        return data

    def delete(self, names: Iterable[str]) -> None:
        """Delete blocks."""
        self.place.delete([_block(name) for name in names])

    def snapshots(self) -> list[Snapshot]:
        """Return all snapshots, the oldest first. Raises DataError for a corrupt one."""
        names = sorted(name.rpartition("/")[2] for name in self.place.names("snapshots"))
        return [self._snapshot(name) for name in names]

    def latest(self) -> Snapshot | None:
        """Return the last snapshot; None where there is none, or it is corrupt."""
        names = self.place.names("snapshots")
        try:
            return self._snapshot(max(names).rpartition("/")[2]) if names else None
        except DataError:
            return None

    def find(self, name: str) -> Snapshot:
        """Return a snapshot by the beginning of its id; `latest` is the last one. Raises UserError."""
        known = sorted(each.rpartition("/")[2] for each in self.place.names("snapshots"))
        found = [each for each in known if name == "latest" or (name and each.startswith(name))]
        if not found:
            raise UserError(f"no snapshot {name!r} in {self.place.address}", fix="see `raypath backup list`")
        return self._snapshot(found[-1])

    def add(self, snapshot: Snapshot) -> None:
        """Store a snapshot, whose blocks are all stored."""
        sealed = self._key.seal(snapshot.id, snapshot.model_dump_json().encode())
        self.place.create(f"snapshots/{snapshot.id}", sealed)

    def forget(self, snapshot: Snapshot) -> None:
        """Delete a snapshot; its blocks stay until they are pruned."""
        self.place.delete([f"snapshots/{snapshot.id}"])

    def _snapshot(self, name: str) -> Snapshot:
        try:
            return Snapshot.model_validate_json(self._key.open(name, self.place.get(f"snapshots/{name}") or b""))
        except ValueError:  # ValidationError is one
            raise DataError(f"snapshot {name} in {self.place.address} is corrupt", fix=_ANOTHER) from None


_TIME = "%Y%m%d-%H%M%S-%f"
_ANOTHER = "restore another snapshot (`raypath backup list`), and make a new backup"


def new_id(before: Snapshot | None) -> str:
    """Return the id of a new snapshot; ids sort in the order in which they were made, also if the clock was set back.

    before: the last snapshot. `latest` and `prune` go by this order.
    """
    now, last = f"{datetime.now(UTC):{_TIME}}", before.id[: len("20261130-120000-000000")] if before else ""
    if now <= last:
        now = f"{datetime.strptime(last, _TIME) + timedelta(microseconds=1):{_TIME}}"
    return f"{now}-{secrets.token_hex(2)}"


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    master: str
    """Id of the master key."""
    wrapped: str


def open_repository(address: str, key: MasterKey, create: bool = False) -> Repository:
    """Open the repository at a place. create: make one where there is none.

    Raises UserError for a place without a repository or another key, DataError for a corrupt one.
    """
    place = open_place(address)
    config = _read_config(place)
    if config is None:
        if not create:
            raise UserError(f"there is no backup in {address}", fix=f"make one with `raypath backup create {address}`")
        if place.names("blocks") or place.names("snapshots"):
            raise DataError(f"{address} has blocks but no {_CONFIG}", fix="restore that file, or name another place")
        place.create(_CONFIG, _wrapped(key, RepositoryKey.new().secret))
        config = _read_config(place)  # perhaps that of another process
        assert config is not None
    if config.master != key.id:
        what = f"the backup in {address} is encrypted with key {config.master}, and key {key.id} was given"
        raise UserError(what, fix="give the file of the right key")
    return Repository(place, RepositoryKey(key.unwrap(config.wrapped)))


def change_key(address: str, key: MasterKey, new: MasterKey) -> None:
    """Wrap the repository's key by a new master key; no block is rewritten. Raises UserError, DataError."""
    place = open_place(address)
    config = _read_config(place)
    open_repository(address, key)
    assert config is not None
    place.replace(_CONFIG, _wrapped(new, key.unwrap(config.wrapped)))


def _read_config(place: Place) -> _Config | None:
    text = place.get(_CONFIG)
    if text is None:
        return None
    try:
        found = _Config.model_validate_json(text)
    except ValidationError:
        raise DataError(f"{_CONFIG} in {place.address} is corrupt", fix="restore a copy of it") from None
    if found.format != 1:
        raise DataError(f"{place.address} has format {found.format}; this Raypath reads 1", fix="upgrade raypath")
    return found


def _wrapped(key: MasterKey, secret: bytes) -> bytes:
    return _Config(format=1, master=key.id, wrapped=key.wrap(secret)).model_dump_json().encode()


def _block(name: str) -> str:
    return f"blocks/{name[:2]}/{name}"
