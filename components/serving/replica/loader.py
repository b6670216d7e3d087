"""Load a model version for a replica: fetch it, check its signature and its recorded predictions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from raypath.components.core.errors import DataError
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.inference import golden_examples as examples
from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.inference.engine import Engine
from raypath.components.inference.memory import check_memory
from raypath.components.models.metadata import read_metadata
from raypath.components.privacy.keys import key_folder
from raypath.components.privacy.redactor import redactor_of
from raypath.components.registry import cache, tags
from raypath.components.registry import client as registry
from raypath.components.registry.signing.check import check_version
from raypath.components.registry.signing.keys import trusted_keys
from raypath.components.serving.model_versions import LoadedModel, ModelVersion
from raypath.components.tasks.catalog import check_task, load_task
from raypath.components.tracking.tags import SIGNATURE


def load(
    tracking: str,
    wanted: ModelVersion,
    threads: int,
    separate_adapters: bool = False,
    weights: WeightTable | None = None,
    tasks: Collection[str] = (),
    signing: Path | None = None,
    promoted: bool = True,
) -> LoadedModel:
    """Fetch, check, open and warm up a version. Raises DataError, Unavailable.

    tasks: Tasks that the model may name in addition to the built-in ones. signing: Folder of trusted public keys.
    promoted: Require a signed promotion.
    """
    version, folder = fetch(tracking, wanted, signing, promoted)
    return open_version(folder, wanted.name, version, threads, separate_adapters, weights, tasks, signing)


def fetch(tracking: str, wanted: ModelVersion, signing: Path | None, promoted: bool) -> tuple[int, Path]:
    """Return the number and the folder of a version whose signature and files were checked.

    A copy in the cache needs no registry: the plan has the signed records.
    """
    root, keys = cache.cache_folder(signing), trusted_keys(signing)
    if SIGNATURE in wanted.tags:
        manifest = check_version(wanted.name, wanted.version, wanted.tags, keys, promoted)
        found = cache.cached(tracking, wanted.name, wanted.version, wanted.source, root)
        copy = wanted.name, wanted.version, manifest, keys
        if found is not None and cache.check_copy(found, *copy, renewable=bool(tracking)):
            return wanted.version, found
    end = f"/{wanted.version}" if wanted.version else f"@{tags.CHAMPION}"
    _, version, folder = registry.resolve(tracking, f"models:/{wanted.name}{end}", root, signing, promoted)
    return version, folder


def open_version(
    folder: Path,
    name: str,
    version: int,
    threads: int,
    separate_adapters: bool = False,
    weights: WeightTable | None = None,
    tasks: Collection[str] = (),
    signing: Path | None = None,
) -> LoadedModel:
    """Open and warm up a version from its folder, and check its predictions. Raises DataError.

    signing: Folder beside which the keys of redactions are.
    """
    check_memory(sum(path.stat().st_size for path in folder.iterdir()))
    metadata = read_metadata(folder)
    check_task(metadata, tasks)
    task = load_task(metadata)
    task.redactor = redactor_of(metadata.redaction, key_folder(signing))
    if task.generates_text:
        what = f"it is a {metadata.task}, and a model that predicts is in service"
        raise DataError(what, fix="run a workflow that serves it")
    engine = Engine(folder, threads, separate_adapters=separate_adapters, weights=weights)
    tokenizer = TextTokenizer(folder, metadata.max_length)
    engine.warm()
    examples.check_predictions(folder, tokenizer, engine)
    return LoadedModel(name, version, folder, metadata, task, tokenizer, engine)
