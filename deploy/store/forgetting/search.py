"""Search the Parquet files of a store for the rows of a subject, in folders and in buckets.

Searched are artifacts, the shards of their datasets, and what interrupted steps have left in scratch. A store in a
bucket has copies on this machine, which are searched as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from raypath.components.core.errors import PlatformError
from raypath.components.data.sources.bucket import Bucket, Objects
from raypath.components.data.streaming.manifest import MANIFEST, Manifest
from raypath.deploy.store.encryption.folder_objects import FolderObjects
from raypath.deploy.store.object_store import SHARDS
from raypath.deploy.store.scratch_sync import Index
from raypath.deploy.store.store import Store

COLUMNS = ("id", "group")
"""Columns of data sets that name a subject: those of `read.id` and `read.group`."""
LISTED = "listed/artifacts"
"""Folder in the home for artifacts whose shards are in a bucket."""
SCRATCH = "scratch"
_THREADS = 16
_MAGIC = b"PAR1"


@dataclass(frozen=True, order=True)
class FoundRows:
    """Rows of a subject in a file of a store."""

    artifact: str
    """Content address; "" for a file of no artifact, such as one of an interrupted step."""
    file: str
    """Path in the artifact, or in the store."""
    rows: int


def find_rows(store: Store, subject: str, columns: Iterable[str] = COLUMNS) -> list[FoundRows]:
    """Return the files with rows whose column, one of these, has this value.

    Raises PlatformError for a file that cannot be read, and what the bucket raises.
    """
    wanted, places = list(columns), places_of(store)
    datasets = shards_by_dataset(places)
    with ThreadPoolExecutor(_THREADS) as pool:
        names = [(place, name) for place in places for name in _tables(place)]
        counts = list(pool.map(lambda each: _rows(each[0], each[1], subject, wanted), names))
    found = set()
    for (_, name), rows in zip(names, counts, strict=True):
        found |= {FoundRows(*at, rows) for at in _users(name, datasets)} if rows else set()
    return sorted(found)


def places_of(store: Store) -> list[Objects]:
    """Return where a store has its files: their stored form, and this machine's copies of those in a bucket."""
    stored = store.objects
    return [stored, FolderObjects(store.root)] if isinstance(stored, Bucket) else [stored]


def shards_by_dataset(places: Iterable[Objects]) -> dict[str, set[tuple[str, str]]]:
    """Return the (content address, path) of the files that manifests of datasets name, by the SHA-256 of a shard."""
    found: dict[str, set[tuple[str, str]]] = {}
    for place in places:
        names = [name for folder in ("artifacts", LISTED) for name in place.names(folder) if name.endswith(MANIFEST)]
        with ThreadPoolExecutor(_THREADS) as pool:
            for name, content in zip(names, pool.map(place.get, names), strict=True):
                artifact, file = _artifact(name)
                with suppress(ValidationError):
                    for shard in Manifest.model_validate_json(content[0]).shards if content else ():
                        at = artifact, file.removesuffix(MANIFEST) + shard.name
                        found.setdefault(shard.sha256, set()).add(at)
    return found


def shard_of(name: str) -> str:
    """Return the SHA-256 of an object of `shards`, in a bucket or in this machine's cache."""
    return name.removeprefix(f"{SHARDS}/").removesuffix(".parquet")


def _tables(place: Objects) -> Iterator[str]:
    """Yield the names of all objects that may be Parquet files."""
    for folder in ("artifacts", LISTED):
        yield from (name for name in place.names(folder) if name.endswith(".parquet"))
    # Names that begin with a dot are locks and downloads of the cache.
    yield from (name for name in place.names(SHARDS) if not name.startswith(f"{SHARDS}/."))
    for name in place.names(SCRATCH):
        if name.endswith(".parquet") or "/parts/" in name:
            yield name
        elif name.endswith("/index.json") and (index := place.get(name)):
            with suppress(ValidationError):
                files = Index.model_validate_json(index[0]).files
                yield from (
                    name.replace("index.json", sha) for file, (sha, _) in files.items() if file[-8:] == ".parquet"
                )


def _users(name: str, datasets: dict[str, set[tuple[str, str]]]) -> set[tuple[str, str]]:
    """Return the (content address, path) of the files that an object is, "" and its name if it is in no artifact."""
    if name.startswith(f"{SHARDS}/"):
        sha256 = shard_of(name)
        return datasets.get(sha256) or {("", f"{SHARDS}/{sha256}")}
    return {("", name) if name.startswith(f"{SCRATCH}/") else _artifact(name)}


def _artifact(name: str) -> tuple[str, str]:
    """Split a name into content address and path. A nested artifact that was fetched alone has a longer address."""
    folder, _, file = name.partition("artifacts/")[2].partition("/")
    return folder.partition(".")[0], file


def _rows(place: Objects, name: str, subject: str, columns: list[str]) -> int:
    """Return the number of rows of a Parquet file that name a subject. Row groups are skipped by their statistics."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with place.open(name) as source:
            if name.startswith(f"{SCRATCH}/") and source.read(len(_MAGIC)) != _MAGIC:
                return 0
            source.seek(0)
            schema = pq.read_schema(source)
            filters = []
            for column in columns:
                if column in schema.names and (value := _value(subject, schema.field(column).type)) is not None:
                    filters.append([(column, "==", value)])
            if not filters:
                return 0
            needed = [each[0][0] for each in filters]
            return int(pq.read_table(source, columns=needed, filters=filters, partitioning=None).num_rows)
    except FileNotFoundError:
        # It was removed meanwhile.
        return 0
    except (pa.ArrowException, OSError) as error:
        what = f"{place.address}/{name} cannot be read ({type(error).__name__})"
        raise PlatformError(what, fix="run `raypath backup verify`, or remove it") from None


def _value(subject: str, kind: Any) -> Any:
    """Return the subject as a value of an Arrow type; None if it is none."""
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return subject
    if pa.types.is_integer(kind):
        with suppress(ValueError):
            return int(subject)
    return None
