"""Load a model version for a replica: fetch it, check its files and its recorded predictions."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from raypath.components.data.tokenizer import TextTokenizer
from raypath.components.inference import golden_examples as examples
from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.inference.engine import Engine
from raypath.components.inference.memory import check_memory
from raypath.components.models.metadata import read_metadata
from raypath.components.registry import cache, tags
from raypath.components.registry import client as registry
from raypath.components.serving.model_versions import LoadedModel, ModelVersion
from raypath.components.tasks.catalog import check_task, load_task

log = logging.getLogger("ray.serve")


def load(
    tracking: str,
    wanted: ModelVersion,
    threads: int,
    separate_adapters: bool = False,
    weights: WeightTable | None = None,
    tasks: Collection[str] = (),
) -> LoadedModel:
    """Fetch, check, open and warm up a version; fetch a corrupt copy again. Raises DataError, Unavailable.

    tasks: Tasks that the model may name in addition to the built-in ones.
    """
    version, folder = _fetch(tracking, wanted)
    copy = cache.copy_id(folder)
    try:
        return open_version(folder, wanted.name, version, threads, separate_adapters, weights, tasks)
    except examples.CorruptModel:
        if not tracking:  # no registry to fetch it from
            raise
        log.warning("the copy of %s version %s in %s is corrupt and is fetched again", wanted.name, version, folder)
    cache.discard_corrupt(folder, copy)
    version, folder = _fetch(tracking, wanted)
    return open_version(folder, wanted.name, version, threads, separate_adapters, weights, tasks)


def _fetch(tracking: str, wanted: ModelVersion) -> tuple[int, Path]:
    root = cache.cache_folder()
    found = cache.cached(tracking, wanted.name, wanted.version, wanted.source, root)
    if found is not None:
        return wanted.version, found
    end = f"/{wanted.version}" if wanted.version else f"@{tags.CHAMPION}"
    _, version, folder = registry.resolve(tracking, f"models:/{wanted.name}{end}", root)
    return version, folder


def open_version(
    folder: Path,
    name: str,
    version: int,
    threads: int,
    separate_adapters: bool = False,
    weights: WeightTable | None = None,
    tasks: Collection[str] = (),
) -> LoadedModel:
    """Check, open and warm up a version from its folder. Raises DataError."""
    examples.check_files(folder)
    check_memory(sum(path.stat().st_size for path in folder.iterdir()))
    metadata = read_metadata(folder)
    check_task(metadata, tasks)
    engine = Engine(folder, threads, separate_adapters=separate_adapters, weights=weights)
    tokenizer = TextTokenizer(folder, metadata.max_length)
    engine.warm()
    examples.check_predictions(folder, tokenizer, engine)
    return LoadedModel(name, version, folder, metadata, load_task(metadata), tokenizer, engine)
