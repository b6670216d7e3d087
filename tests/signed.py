"""A signed version without a registry: its folder in the cache, and the plan's entry with its records."""

import shutil
from pathlib import Path

from raypath.components.registry import cache
from raypath.components.registry.signing import keys
from raypath.components.registry.signing.manifest import sign_folder
from raypath.components.registry.signing.records import sign_promotion, sign_version
from raypath.components.serving.model_versions import ModelVersion
from raypath.components.tracking.tags import PROMOTION, SIGNATURE

SOURCE = "models:/x"


def signed_version(folder: Path, name: str, version: int, tracking: str = "", source: str = SOURCE) -> ModelVersion:
    """Copy a model folder into the cache, as a download would, signed by the key of the tests."""
    wanted = ModelVersion(name=name, version=version, source=source)
    copy = cached_folder(wanted, tracking)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, copy)
    key = keys.signing_key(None)
    manifest = sign_folder(key, copy, "", name, {})
    tags = {
        SIGNATURE: sign_version(key, name, version, manifest.digest, {}),
        PROMOTION: sign_promotion(key, name, version, 0, ""),
    }
    return wanted.model_copy(update={"tags": tags})


def cached_folder(wanted: ModelVersion, tracking: str = "") -> Path:
    """The folder of a version in the cache."""
    return cache._folder_of(tracking, wanted.name, wanted.version, wanted.source, cache.cache_folder())
