"""Encrypt what a home has in plaintext. An interrupted conversion is resumed by the next.

Each file is replaced atomically. What a disk, its snapshots or a backup kept of the plaintext before stays there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from raypath.components.core.files import file_digest
from raypath.components.encryption.envelope import is_sealed
from raypath.components.encryption.vault import Vault
from raypath.components.registry.signing.manifest import FILE as MANIFEST
from raypath.deploy.store.encryption.folder_objects import FolderObjects
from raypath.deploy.store.encryption.sealed_objects import SealedObjects
from raypath.deploy.store.object_store import Manifest
from raypath.deploy.store.scratch_sync import ScratchMirror

KINDS = ("artifacts", "records", "scratch", "predictions", "usage", "spool", "mlflow")
"""Kinds of files that are encrypted."""
_OTHERS = {"predictions": "predictions", "usage": "access/usage", "mlflow": "mlflow/artifacts"}
"""Folders in a home whose files are encrypted one by one."""
_OF_MLFLOW = re.compile(r"/models/[^/]+/artifacts/(?!artifacts/model/)")
"""Files of a registered version that MLflow reads: code, requirements, a made-up example. They have no data."""
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}")
"""Temporary files of `new_file`; authors of artifacts may have hidden files too."""
Progress = Callable[[int], object]


def count_files(home: Path, root: Path) -> tuple[Counter[str], Counter[str]]:
    """Return the numbers of encrypted files and of those in plaintext, by kind. root: folder of the store."""
    sealed, plain = Counter[str](), Counter[str]()
    for kind, path in _files(home, root):
        with contextlib.suppress(FileNotFoundError):
            if not _is_unfinished(path):
                (sealed if is_sealed(path) else plain)[kind] += 1
    return sealed, plain


def encrypt(home: Path, root: Path, vault: Vault, progress: Progress = lambda _: None) -> int:
    """Encrypt the files in plaintext; returns their number. No process may use the home meanwhile."""
    for folder in (home / "attempts").iterdir() if (home / "attempts").is_dir() else ():
        if folder.is_dir() and not folder.name.startswith("convert-"):
            shutil.rmtree(folder, ignore_errors=True)
    for path in [path for _, path in _files(home, root) if _is_unfinished(path)]:
        path.unlink(missing_ok=True)
    objects = SealedObjects(FolderObjects(root), vault, home / "attempts")
    count = _convert_scratch(home, root, objects)
    for folder in sorted((root / "artifacts").iterdir()) if (root / "artifacts").is_dir() else ():
        count += _convert_artifact(root, folder, vault, objects, progress)
    for kind, path in _files(home, root):
        if kind not in ("artifacts", "scratch") and not is_sealed(path):
            base = root if kind == "records" else home
            _seal(vault, path.relative_to(base).as_posix(), path, progress)
            count += 1
    return count


def _files(home: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for kind in ("artifacts", "records", "scratch"):
        yield from ((kind, path) for path in _below(root / kind))
    for kind, name in _OTHERS.items():
        for path in _below(home / name):
            if (
                path.name != MANIFEST
                and (_is_unfinished(path) or not path.name.startswith("."))
                and not _OF_MLFLOW.search(path.as_posix())
            ):
                yield kind, path


def _is_unfinished(path: Path) -> bool:
    """Return True for what a killed conversion left beside a file: its encrypted form, or a part of it."""
    name = _UNFINISHED.fullmatch(path.name)
    if name is None or not path.with_name(name[1]).is_file():
        return False
    return path.stat().st_size == 0 or is_sealed(path)


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _convert_artifact(root: Path, folder: Path, vault: Vault, objects: SealedObjects, progress: Progress) -> int:
    """Encrypt the files of an artifact, then write their digests, which make it complete."""
    files, count = {}, 0
    for path in _below(folder):
        name, inside = path.relative_to(root).as_posix(), path.relative_to(folder).as_posix()
        if is_sealed(path):
            plain = vault.read(path, name)
            files[inside] = hashlib.sha256(plain).hexdigest(), len(plain)
            continue
        files[inside] = file_digest(path), path.stat().st_size
        _seal(vault, name, path, progress)
        count += 1
    if objects.size(f"manifests/{folder.name}.json") is None:
        objects.put(f"manifests/{folder.name}.json", Manifest(files=files).model_dump_json().encode())
    return count


def _convert_scratch(home: Path, root: Path, objects: SealedObjects) -> int:
    """Move checkpoints of interrupted steps to the form of a mirror, which is encrypted."""
    count = 0
    (home / "attempts").mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in sorted((root / "scratch").iterdir()) if (root / "scratch").is_dir() else ():
        if folder.is_dir() and not (folder / "index.json").exists():
            shutil.move(folder, home / "attempts" / f"convert-{folder.name}")
    for folder in (home / "attempts").glob("convert-*"):
        count += len(_below(folder))
        ScratchMirror(objects, folder.name.removeprefix("convert-"), folder, lambda: True).copy()
        shutil.rmtree(folder)
    return count


def _seal(vault: Vault, name: str, path: Path, progress: Progress) -> None:
    status = path.stat()
    vault.seal_file(name, path, path)
    # Retention goes by the time of the last change.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    progress(status.st_size)
