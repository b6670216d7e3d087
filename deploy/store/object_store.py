"""Artifact store on S3-compatible object storage. The home is a local cache and contains attempts and scratch folders.

    raypath.json                   marks the folder as a store
    artifacts/<digest>/<file>      files of artifacts
    shards/<sha256>                files of datasets that tasks uploaded; a manifest in the artifact lists them
    manifests/<digest>.json        names, SHA-256 and sizes; written once all files are uploaded
    records/<key>.json             written last and only once: a step with a record is done
    leases/<key>.json              held by the process that runs the step
    scratch/<key>/                 copies of the step's checkpoints

In the home, `artifacts` has complete artifacts, `shards` the shards that this machine wrote or read, and
`listed/artifacts` artifacts whose datasets have a manifest and no shards: those of steps that read by shard.

Nothing depends on listings, which may be outdated. Uploads of a process that died before it wrote the record remain;
they are used by the next commit of the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.context import ShardStorage
from raypath.components.core.errors import StoreError
from raypath.components.core.files import file_digest, is_disk_full, link
from raypath.components.data.sources.bucket import Bucket, Objects
from raypath.components.data.streaming.manifest import MANIFEST, WrittenShard, read_manifest
from raypath.components.data.streaming.shard_cache import LIMIT, parse_limit
from raypath.components.data.streaming.shard_storage import ORIGIN, Origin, fetched
from raypath.deploy.store import scratch_sync
from raypath.deploy.store.lease import Lease
from raypath.deploy.store.scratch_sync import ScratchMirror
from raypath.deploy.store.store import Record, Store, place_of, placed, reject_sealed

TRIES = 3
"""Downloads of a file before the stored object counts as corrupt."""
SHARDS = "shards"
"""Folder in the home for shards that this machine wrote or read."""
FILES = 4
"""Files transferred in parallel."""
_GONE = "run the same command again, which recomputes it"
log = logging.getLogger("raypath.store")


class Manifest(BaseModel):
    """Files of an artifact; it exists only when all of them are stored."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, tuple[str, int]]
    """(SHA-256, bytes) by name."""


class ObjectStore(Store):
    """Artifacts and records in a bucket; files are fetched below `home` on demand. Safe for several machines."""

    def __init__(self, home: Path, address: str) -> None:
        super().__init__(home)
        self.bucket: Objects = Bucket(address)
        self.address = address

    def open(self) -> ObjectStore:
        """Create the local folders and check the bucket. Raises UserError or Unavailable."""
        parse_limit(os.environ.get(LIMIT, ""))
        super().open()
        (self._listed / "artifacts").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.bucket.check()
        return self

    def record(self, key: str) -> Record | None:
        """Return the record of a step, None when it is not committed or its files are missing. Fetches no files."""
        found = self.bucket.get(f"records/{key}.json")
        if found is None:
            return None
        reject_sealed(found[0], self.address)
        try:
            record = Record.model_validate_json(found[0])
        except ValidationError:
            return None
        place = place_of(record.artifact["uri"])
        if place is None or self.bucket.size(f"manifests/{place[0]}.json") is None:
            return None
        return record.model_copy(update={"artifact": placed(record.artifact, self.root)})

    def forget(self, key: str) -> None:
        """Remove a step's record and scratch folder, locally and in the bucket."""
        self.bucket.delete([f"records/{key}.json"])
        scratch_sync.forget(self.bucket, key)
        super().forget(key)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the lease of a step; meanwhile its scratch folder is restored and then copied to the bucket."""
        with super().lock(key), self._lease(key) as allowed:
            mirror = ScratchMirror(self.bucket, key, self.scratch(key), allowed, self._mirror_seconds)
            mirror.start()
            try:
                yield
            except BaseException:
                mirror.stop(last=True)
                raise
            mirror.stop(last=False)
            if not self.scratch(key).exists():
                scratch_sync.forget(self.bucket, key)

    @contextlib.contextmanager
    def _lease(self, key: str) -> Iterator[Callable[[], bool]]:
        """Hold the lease of a step; yields a function that returns True while this process has it."""
        lease = Lease(self.bucket, key)
        lease.acquire()
        try:
            yield lambda: not lease.lost
        finally:
            lease.release()

    @property
    def _mirror_seconds(self) -> float:
        return scratch_sync.PERIOD

    def _publish(self, record: Record, name: str, files: dict[str, str]) -> Record:
        """Upload missing files, then write the record; the first process that writes it wins."""
        if self.bucket.size(f"manifests/{name}.json") is None:
            self._upload(name, files)
        at, data = f"records/{record.key}.json", record.model_dump_json(indent=1).encode()
        while not self.bucket.create(at, data):
            winner = self.record(record.key)
            if winner is not None:
                return winner
            # A record that is corrupt, or whose files are missing, counts as absent.
            found = self.bucket.get(at)
            if found is not None and self.bucket.replace(at, data, found[1]):
                break
        return record

    def _upload(self, name: str, files: dict[str, str]) -> None:
        folders = [root / "artifacts" / name for root in (self.root, self._listed)]
        folder = next(path for path in folders if path.is_dir())
        with ThreadPoolExecutor(FILES) as pool:
            list(pool.map(lambda file: self.bucket.upload(folder / file, f"artifacts/{name}/{file}"), files))
        sizes = {file: (digest, (folder / file).stat().st_size) for file, digest in files.items()}
        self.bucket.put(f"manifests/{name}.json", Manifest(files=sizes).model_dump_json().encode())

    @property
    def objects(self) -> Objects:
        """The bucket, or what stores encrypted artifacts and records."""
        return self.bucket

    def shard_storage(self) -> ShardStorage | None:
        """Return the bucket, and the folder of this machine's shards."""
        return self._shards

    @property
    def _shards(self) -> ShardStorage:
        return ShardStorage(self.address, self.root / SHARDS)

    def _final(self, attempt: Path, name: str) -> Path:
        """Return the folder of a committed artifact, which is apart if its shards are in the bucket alone."""
        marked = [path.parent for path in attempt.rglob(ORIGIN)]
        for folder in marked:
            Origin.of(self._shards, name).write(folder)
        return (self._listed if marked else self.root) / "artifacts" / name

    @property
    def _listed(self) -> Path:
        return self.root / "listed"

    def _present(self, uri: str, by_shard: bool = False) -> str:
        """Return the local folder of a URI, fetched when missing. A nested artifact is fetched alone."""
        place = place_of(uri)
        if place is None:
            return uri
        folder, inside = place
        # A folder named by a digest is always complete; nested artifacts have folders of their own until then.
        alone = f"{folder}.{hashlib.sha256(inside.encode()).hexdigest()[:8]}" if inside else folder
        roots = (self.root, self._listed) if by_shard else (self.root,)
        places = [root / "artifacts" / name / inside for root in roots for name in (folder, alone)]
        with super().lock(folder):
            found = next((path for path in places if path.is_dir()), None)
            return str(found or self._fetch(folder, inside, alone, by_shard) / inside)

    def _fetch(self, folder: str, inside: str, name: str, by_shard: bool) -> Path:
        """Download the files below `inside` to a private folder, verify them, then move it to the artifacts.

        Returns the folder. by_shard: shards that tasks uploaded remain in the bucket.
        """
        found = self.bucket.get(f"manifests/{folder}.json")
        if found is None:
            raise StoreError(f"{self.address}/artifacts/{folder} is missing", fix=_GONE)
        prefix = f"{inside}/" if inside else ""
        files = {n: f for n, f in Manifest.model_validate_json(found[0]).files.items() if n.startswith(prefix)}
        for old in self.root.glob(f"attempts/fetch-{folder}-*"):
            shutil.rmtree(old, ignore_errors=True)
        private = self.root / "attempts" / f"fetch-{folder}-{uuid.uuid4().hex[:8]}"
        try:
            self._check_free_space(sum(size for _, size in files.values()))
            (private / inside).mkdir(parents=True, mode=0o700)
            with ThreadPoolExecutor(FILES) as pool:
                list(pool.map(lambda n: self._file(folder, n, private / n, *files[n]), files))
                stored = self._stored_shards(folder, private)
                if not by_shard:
                    list(pool.map(_link, stored))
            for path in {path.parent for path, *_ in stored} if by_shard else ():
                Origin.of(self._shards, folder).write(path)
            target = (self._listed if by_shard and stored else self.root) / "artifacts" / name
            os.rename(private, target)
            return target
        except OSError as error:
            reason = "the disk is full" if is_disk_full(error) else error.strerror
            raise StoreError(f"cannot fetch to {self.root}: {reason}", fix="free disk space, then run again") from None
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def _stored_shards(self, folder: str, private: Path) -> list[tuple[Path, Origin, WrittenShard]]:
        """List the shards of an artifact that are not among its own files, each with its path."""
        origin = Origin.of(self._shards, folder)
        manifests = [(path.parent, read_manifest(path.parent)) for path in private.rglob(MANIFEST)]
        shards = [(place / each.name, origin, each) for place, found in manifests if found for each in found.shards]
        return [each for each in shards if not each[0].exists()]

    def _check_free_space(self, wanted: int) -> None:
        free = self.free_bytes()
        if wanted > free:
            what = f"an input takes {wanted >> 20} MiB, and the disk of {self.root} has {free >> 20} MiB free"
            raise StoreError(what, fix="free disk space or set RAYPATH_HOME, then run again")

    def _file(self, folder: str, name: str, path: Path, digest: str, size: int) -> None:
        """Download one file and verify its digest; retries when it does not match."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for attempt in range(TRIES):
            with contextlib.suppress(FileNotFoundError):
                self.bucket.download(f"artifacts/{folder}/{name}", path, size)
            if path.is_file() and file_digest(path) == digest:
                return
            path.unlink(missing_ok=True)
            log.warning("%s of %s does not match its digest (attempt %d of %d)", name, folder, attempt + 1, TRIES)
        # The stored object is corrupt. Without a manifest the artifact counts as missing, and its step runs again.
        self.bucket.delete([f"manifests/{folder}.json"])
        raise StoreError(f"{self.address}/artifacts/{folder}/{name} is corrupt", fix=_GONE)


def _link(stored: tuple[Path, Origin, WrittenShard]) -> None:
    """Fetch a shard, and link it to its path in an artifact."""
    path, origin, shard = stored
    with fetched(origin, shard) as found:
        link(str(found), str(path))
