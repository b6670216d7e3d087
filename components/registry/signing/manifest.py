"""Signed manifest of a model folder: signature.json, in the format of OpenSSF model signing.

It lists every file of the folder with its SHA-256, the name of the model and the tags of its version. The tool
`model_signing verify key` accepts it too. The record of a version (records.py) names the manifest by its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.files import file_digest, write_atomically
from raypath.components.registry.signing import envelope
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import PublicKey, SigningKey, short

FILE = "signature.json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_OWN = "raypath"
"""Field of the predicate with what Raypath adds."""
_MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class Manifest:
    """Verified manifest."""

    digest: str
    """SHA-256 of the signed statement."""
    key: str
    model: str
    tags: dict[str, str]
    files: dict[str, str]
    """SHA-256 by path in the model folder."""
    package: dict[str, str]
    """SHA-256 by path in the MLflow model, of its files outside the model folder."""


def sign_folder(key: SigningKey, root: Path, inside: str, model: str, tags: Mapping[str, str]) -> Manifest:
    """Write signature.json into the model folder of an MLflow model; returns the manifest.

    Args:
        root: The MLflow model, with MLmodel and pyfunc_model.py.
        inside: Path of the model folder in it; "" for the folder itself.
        tags: Tags that the version gets.
    """
    folder = root / inside
    (folder / FILE).unlink(missing_ok=True)
    files, everything = folder_digests(folder), folder_digests(root)
    package = {name: digest for name, digest in everything.items() if inside and not name.startswith(f"{inside}/")}
    statement = _statement(files, {"model": model, "tags": dict(tags), "package": package})
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public.id}, "tlogEntries": []},
        "dsseEnvelope": envelope.sign(key, _PAYLOAD, envelope.dumps(statement)),
    }
    write_atomically(folder / FILE, json.dumps(bundle))
    return read_manifest(folder, {key.public.id: key.public})


def _statement(files: Mapping[str, str], own: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted(files)
    total = hashlib.sha256(b"".join(bytes.fromhex(files[name]) for name in names)).hexdigest()
    return {
        "_type": _STATEMENT,
        "subject": [{"name": own["model"], "digest": {"sha256": total}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [FILE],
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": files[name]} for name in names],
            _OWN: dict(own),
        },
    }


def read_manifest(folder: Path, keys: Mapping[str, PublicKey]) -> Manifest:
    """Return the manifest of a model folder, whose files are not read. Raises Untrusted."""
    path = folder / FILE
    if path.is_symlink() or not path.is_file():
        raise Untrusted("unsigned", "is not signed")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError
        signed = json.loads(path.read_text(encoding="utf-8"))["dsseEnvelope"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Untrusted("altered", f"has a {FILE} that cannot be read") from None
    payload = envelope.verify(signed, _PAYLOAD, keys)
    found = json.loads(payload)
    # Signed by a trusted key, so that its form needs no distrust; another tool may have signed another form with it.
    with contextlib.suppress(KeyError, TypeError):
        if (found["_type"], found["predicateType"]) == (_STATEMENT, _PREDICATE):
            own, resources = found["predicate"][_OWN], found["predicate"]["resources"]
            return Manifest(
                digest=hashlib.sha256(payload).hexdigest(),
                key=envelope.key_of(signed),
                model=own["model"],
                tags=own["tags"],
                files={each["name"]: each["digest"] for each in resources},
                package=own["package"],
            )
    raise Untrusted("altered", f"has a {FILE} of another program (key {short(envelope.key_of(signed))})")


def check_folder(folder: Path, manifest: Manifest) -> None:
    """Hash the files of a model folder. Raises Untrusted for one that is missing, altered or added."""
    compare(manifest.files, folder_digests(folder))


def compare(signed: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise Untrusted for the first file that is missing, altered or added."""
    for name, digest in sorted(signed.items()):
        if name not in found:
            raise Untrusted("altered", f"lacks its file {name}")
        if found[name] != digest:
            raise Untrusted("altered", f"has a file {name} that is not the one that was registered")
    if added := sorted(set(found) - set(signed)):
        raise Untrusted("altered", f"has a file {added[0][:100]!r} that was not registered")


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its path in a folder, but for signature.json. Raises Untrusted for a link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Untrusted("altered", f"has a link or special file {name[:100]!r}")
        if path.is_file() and name != FILE:
            found[name] = file_digest(path)
    return found
