"""The store on S3-compatible object storage; the home is this machine's cache, and the place of attempts and scratch.

    raypath.json                   marks the folder as a store
    artifacts/<digest>/<file>      what steps made
    manifests/<digest>.json        written once all of these are there: names, SHA-256, sizes
    records/<key>.json             written last, unless there is one: that it exists means the step is done
    leases/<key>.json              held by the process that runs the step
    scratch/<key>/                 copies of its checkpoints

No listing is relied on, so one that lags behind does no harm. What a process that died had uploaded without a record
stays and is in nobody's way; the same content is taken up by the next commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.errors import StoreError
from raypath.components.core.files import file_digest, is_disk_full
from raypath.deploy.store import scratch_sync as scratch_mirror
from raypath.deploy.store.bucket import Bucket
from raypath.deploy.store.lease import Lease
from raypath.deploy.store.scratch_sync import ScratchMirror
from raypath.deploy.store.store import Record, Store, place_of, placed

TRIES = 3
"""Times a file is fetched before what is stored counts as damaged."""
FILES = 4
"""Files on their way at the same time."""
_GONE = "run the same line again, which makes it anew"
log = logging.getLogger("raypath.store")


class Manifest(BaseModel):
    """The files of an artifact, all of which are there."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, tuple[str, int]]
    """(SHA-256, bytes) by name."""


class ObjectStore(Store):
    """Artifacts and records in a bucket, files on demand below `home`. Safe for many machines."""

    def __init__(self, home: Path, address: str) -> None:
        super().__init__(home)
        self.bucket = Bucket(address)
        self.address = address

    def open(self) -> ObjectStore:
        """Make the local folders and look that the bucket can be used. Raises UserError or Unavailable."""
        super().open()
        self.bucket.check()
        return self

    def record(self, key: str) -> Record | None:
        """The record of a step, None when it is not committed or its files are gone. Fetches no files."""
        found = self.bucket.get(f"records/{key}.json")
        if found is None:
            return None
        try:
            record = Record.model_validate_json(found[0])
        except ValidationError:
            return None
        place = place_of(record.artifact["uri"])
        if place is None or self.bucket.size(f"manifests/{place[0]}.json") is None:
            return None
        return record.model_copy(update={"artifact": placed(record.artifact, self.root)})

    def forget(self, key: str) -> None:
        """Remove a step's record and scratch, here and there."""
        self.bucket.delete([f"records/{key}.json"])
        scratch_mirror.forget(self.bucket, key)
        super().forget(key)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """One process of all machines runs a step. Within, its scratch is brought here and copied as it grows."""
        with super().lock(key):
            lease = Lease(self.bucket, key)
            lease.acquire()
            try:
                mirror = ScratchMirror(self.bucket, key, self.scratch(key), lambda: not lease.lost)
                mirror.start()
                try:
                    yield
                except BaseException:
                    mirror.stop(last=True)
                    raise
                mirror.stop(last=False)
                if not self.scratch(key).exists():
                    scratch_mirror.forget(self.bucket, key)
            finally:
                lease.release()

    def _publish(self, record: Record, name: str, files: dict[str, str]) -> Record:
        """Upload what is not there yet, then write the record; the first one to write it wins."""
        if self.bucket.size(f"manifests/{name}.json") is None:
            self._upload(name, files)
        at, data = f"records/{record.key}.json", record.model_dump_json(indent=1).encode()
        while not self.bucket.create(at, data):
            winner = self.record(record.key)
            if winner is not None:
                return winner
            # A record that is damaged, or whose files are gone, counts as none.
            found = self.bucket.get(at)
            if found is not None and self.bucket.replace(at, data, found[1]):
                break
        return record

    def _upload(self, name: str, files: dict[str, str]) -> None:
        folder = self.root / "artifacts" / name
        with ThreadPoolExecutor(FILES) as pool:
            list(pool.map(lambda file: self.bucket.upload(folder / file, f"artifacts/{name}/{file}"), files))
        sizes = {file: (digest, (folder / file).stat().st_size) for file, digest in files.items()}
        self.bucket.put(f"manifests/{name}.json", Manifest(files=sizes).model_dump_json().encode())

    def _present(self, uri: str) -> str:
        """Where the files of an address are on this machine; fetched when they are not. A part is fetched alone."""
        place = place_of(uri)
        if place is None:
            return uri
        folder, inside = place
        whole = self.root / "artifacts" / folder
        apart = self.root / "artifacts" / f"{folder}.{hashlib.sha256(inside.encode()).hexdigest()[:8]}"
        # A folder named by a digest is whole, always; a part lies in one of its own until the whole is asked for.
        target = apart if inside else whole
        with super().lock(folder):
            found = next((f / inside for f in (whole, target) if (f / inside).is_dir()), None)
            if found is None:
                self._fetch(folder, inside, target)
            return str(found or target / inside)

    def _fetch(self, folder: str, inside: str, target: Path) -> None:
        """Bring the files below `inside` to a private folder, verify them, then rename it to `target`."""
        found = self.bucket.get(f"manifests/{folder}.json")
        if found is None:
            raise StoreError(f"{self.address}/artifacts/{folder} is gone", fix=_GONE)
        prefix = f"{inside}/" if inside else ""
        files = {n: f for n, f in Manifest.model_validate_json(found[0]).files.items() if n.startswith(prefix)}
        for old in self.root.glob(f"attempts/fetch-{folder}-*"):
            shutil.rmtree(old, ignore_errors=True)
        private = self.root / "attempts" / f"fetch-{folder}-{uuid.uuid4().hex[:8]}"
        try:
            self._check_room(sum(size for _, size in files.values()))
            (private / inside).mkdir(parents=True, mode=0o700)
            with ThreadPoolExecutor(FILES) as pool:
                list(pool.map(lambda n: self._file(folder, n, private / n, *files[n]), files))
            os.rename(private, target)
        except OSError as error:
            reason = "the disk is full" if is_disk_full(error) else error.strerror
            raise StoreError(f"cannot fetch to {self.root}: {reason}", fix="free room, then run again") from None
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def _check_room(self, wanted: int) -> None:
        free = self.free_bytes()
        if wanted > free:
            what = f"an input takes {wanted >> 20} MiB, and the disk of {self.root} has {free >> 20} MiB free"
            raise StoreError(what, fix="free room or set RAYPATH_HOME, then run again")

    def _file(self, folder: str, name: str, path: Path, digest: str, size: int) -> None:
        """Fetch one file until it is what its digest says."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for attempt in range(TRIES):
            with contextlib.suppress(FileNotFoundError):
                self.bucket.download(f"artifacts/{folder}/{name}", path, size)
            if path.is_file() and file_digest(path) == digest:
                return
            path.unlink(missing_ok=True)
            log.warning("%s of %s came damaged (%d of %d)", name, folder, attempt + 1, TRIES)
        # What is stored is damaged. Without its manifest the artifact counts as gone, and its step runs again.
        self.bucket.delete([f"manifests/{folder}.json"])
        raise StoreError(f"{self.address}/artifacts/{folder}/{name} is damaged", fix=_GONE)
