"""Publish a model folder to MLflow as a version: a logged model of flavor pyfunc, without pickle."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Model
from raypath.components.core.columns import inputs_of
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.files import link, write_atomically
from raypath.components.models.metadata import read_metadata
from raypath.components.registry.cache import FILES, seal_files
from raypath.components.registry.client import RegisteredVersion, versions
from raypath.components.registry.flavors.signatures import pyfunc_options
from raypath.components.registry.presentation import show_version
from raypath.components.registry.signing.check import Keys
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import SigningKey, signing_key, trusted_keys
from raypath.components.registry.signing.manifest import FILE as SIGNATURE_FILE
from raypath.components.registry.signing.manifest import Manifest, read_manifest, sign_folder
from raypath.components.registry.signing.records import sign_version, signed_tags
from raypath.components.registry.tags import METRICS_FILE, unpack
from raypath.components.tasks.catalog import task_type
from raypath.components.tracking.experiments import experiment_id
from raypath.components.tracking.tags import ID, KEY, METRIC_PREFIX, SIGNATURE, TASK

WAIT = 4.0
"""Seconds to wait for the run to appear in MLflow."""
Complete = Callable[[Path], None]
"""Called with the folder of a model before it is uploaded, to add files to it."""


def publish(client: Any, ctx: Context, model: Model, name: str, tags: Mapping[str, str], complete: Complete) -> int:
    """Log and register a model, once for each `tags[raypath.key]`; returns the version.

    The version is linked to the workflow's run, if MLflow has it within a few seconds.

    Args:
        complete: Adds files to the model's folder before the upload, such as golden examples.
    """
    key, signer = tags.get(KEY, ""), signing_key(ctx.signing)
    there = find_published(client, name, key, ctx.signing)
    if there:
        return there
    home = experiment_id(client, ctx.tracking.experiment)
    logged, manifest = _finished_upload(client, home, name, key, ctx.signing)
    if logged is None or manifest is None:
        run = _mlflow_run(client, home, ctx.tracking.parent, WAIT if ctx.tracking.parent else 0.0)
        logged = client.create_logged_model(home, name, source_run_id=run, tags=dict(tags), model_type="pyfunc")
        manifest = _upload(client, model, logged, ctx.scratch / "upload", tags, complete, (signer, name), ctx.signing)
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name, tags={TASK: model.task})
    made = client.create_model_version(
        name,
        f"models:/{logged.model_id}",
        run_id=logged.source_run_id,
        tags=manifest.tags,
        model_id=logged.model_id,
        await_creation_for=0,
    )
    record = sign_version(signer, name, int(made.version), manifest.digest, manifest.tags)
    client.set_model_version_tag(name, str(made.version), SIGNATURE, record)
    show_version(client, logged, made, unpack(manifest.tags), task_type(model.task, model.label_kind).metric)
    return int(made.version)


def find_published(client: Any, name: str, key: str, signing: Path | None) -> int:
    """Return the version that this step registered before, with its files; 0 for none.

    Anyone can give a version this tag, so only a version that is signed counts. One whose files alone are signed was
    interrupted before its record, which is made up for.
    """
    for found in versions(client, name) if key else ():
        if found.tags.get(KEY) != key:
            continue
        # The server leaves `model_id` of a version empty; its source is models:/<model_id>.
        source = client.get_model_version(name, str(found.version)).source
        manifest = _uploaded_manifest(client, source.removeprefix("models:/"), name, key, signing)
        if manifest is None or signed_tags(found.tags) != signed_tags(manifest.tags):
            continue
        if SIGNATURE not in found.tags:
            record = sign_version(signing_key(signing), name, found.version, manifest.digest, manifest.tags)
            client.set_model_version_tag(name, str(found.version), SIGNATURE, record)
        return found.version
    return 0


def _uploaded_manifest(client: Any, model_id: str, name: str, key: str, signing: Path | None) -> Manifest | None:
    """Return the manifest of a logged model that this step has signed; None if its files are missing, or of others."""
    if not client.list_logged_model_artifacts(model_id, FILES):
        return None
    try:
        manifest = _download_manifest(client, model_id, trusted_keys(signing))
    except Untrusted:
        return None
    return manifest if (manifest.model, manifest.tags.get(KEY)) == (name, key) else None


def _download_manifest(client: Any, model_id: str, keys: Keys) -> Manifest:
    """Fetch and verify the manifest of a logged model. Raises Untrusted."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="raypath-") as folder:
        with contextlib.suppress(OSError, MlflowException):  # a model without one is not signed
            where = client.get_logged_model(model_id).artifact_location.rstrip("/")
            uri = f"{where}/{FILES}/{SIGNATURE_FILE}"
            download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=client.tracking_uri)
        return read_manifest(next(Path(folder).rglob(SIGNATURE_FILE), Path(folder, SIGNATURE_FILE)).parent, keys)


def _finished_upload(
    client: Any, experiment: str, name: str, key: str, signing: Path | None
) -> tuple[Any, Manifest | None]:
    """Return the logged model of an interrupted attempt and its manifest; incomplete uploads are deleted."""
    kept: tuple[Any, Manifest | None] = None, None
    wanted = f"tags.`{KEY}` = '{key}' AND name = '{name}'"
    for logged in client.search_logged_models([experiment], filter_string=wanted) if key else ():
        ready = str(logged.status) == "READY"
        manifest = _uploaded_manifest(client, logged.model_id, name, key, signing) if ready else None
        if manifest is not None:
            kept = logged, manifest
        else:
            client.delete_logged_model(logged.model_id)
    return kept


def _upload(
    client: Any,
    model: Model,
    logged: Any,
    work: Path,
    tags: Mapping[str, str],
    complete: Complete,
    signer: tuple[SigningKey, str],
    signing: Path | None,
) -> Manifest:
    """Upload a model's files with their signed manifest. signer: the key, and the name of the registered model."""
    try:
        folder = _write(model, work, logged, tags, complete)
        manifest = sign_folder(signer[0], folder, FILES, signer[1], tags)
        seal_files(folder / FILES, f"models/{logged.model_id}", signing)
        client.log_model_artifacts(logged.model_id, str(folder))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    client.finalize_logged_model(logged.model_id, "READY")
    return manifest


def _write(model: Model, work: Path, logged: Any, tags: Mapping[str, str], complete: Complete) -> Path:
    """Write the MLflow model: MLmodel, requirements, its code (pyfunc_*.py) and artifacts/model."""
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    shutil.rmtree(work, ignore_errors=True)
    # MLflow names an artifact's folder after its source, so the source is a folder with a fixed name, not a link.
    shutil.copytree(model.uri, work / "model", copy_function=link)
    (work / "model").chmod(0o700)
    # For the model card of the endpoint, which has no access to MLflow.
    metrics = {
        name.removeprefix(METRIC_PREFIX): float(value)
        for name, value in unpack(tags).items()
        if name.startswith(METRIC_PREFIX)
    }
    write_atomically(work / "model" / METRICS_FILE, json.dumps(metrics))
    complete(work / "model")
    with warnings.catch_warnings():
        # MLflow warns about its own type hints on import, and about pandas 4 when it writes the example.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import Model as Flavours

        with _requirements_unchecked():
            mlflow.pyfunc.save_model(
                str(work / "mlflow"),
                artifacts={"model": str(work / "model")},
                mlflow_model=Flavours(model_id=logged.model_id, run_id=logged.source_run_id),
                **pyfunc_options(model, inputs_of(read_metadata(Path(model.uri)).columns)),
            )
    return work / "mlflow"


@contextlib.contextmanager
def _requirements_unchecked() -> Iterator[None]:
    """Skip MLflow's check of the requirements: they are the installed versions.

    The check reads the metadata of all installed packages, which takes about a second.
    """
    from mlflow.utils import environment

    check = environment.warn_dependency_requirement_mismatches
    environment.warn_dependency_requirement_mismatches = lambda _: None
    try:
        yield
    finally:
        environment.warn_dependency_requirement_mismatches = check


def _mlflow_run(client: Any, experiment: str, run_id: str, seconds: float) -> str | None:
    """Return MLflow's id of a run, which the process that runs the workflow creates with a delay."""
    end = time.monotonic() + seconds
    while True:
        runs = client.search_runs([experiment], f"tags.`{ID}` = '{run_id}'", max_results=1)
        if runs or time.monotonic() > end:
            return str(runs[0].info.run_id) if runs else None
        time.sleep(0.2)


def check_unused(version: RegisteredVersion) -> None:
    """Raise DataError for a version with an alias."""
    if version.aliases:
        what = f"{version.name} version {version.version} is {' and '.join(version.aliases)}"
        raise DataError(what, fix=f"promote another version first: `raypath promote {version.name} VERSION`")


def withdraw(client: Any, version: RegisteredVersion, artifacts: Path, cache: Path) -> None:
    """Delete a version with its files, and copies in the cache. Raises DataError for one with an alias.

    artifacts: folder of the MLflow server's artifacts. Files that the server keeps elsewhere stay.
    """
    check_unused(version)
    source = client.get_model_version(version.name, str(version.version)).source
    model_id = source.removeprefix("models:/")
    location = client.get_logged_model(model_id).artifact_location
    client.delete_model_version(version.name, str(version.version))
    client.delete_logged_model(model_id)
    folder = (artifacts / location.removeprefix("mlflow-artifacts:/").lstrip("/")).resolve()
    if location.startswith("mlflow-artifacts:/") and folder.is_relative_to(artifacts.resolve()):
        shutil.rmtree(folder, ignore_errors=True)
    for copy in cache.glob(f"{version.name}-{version.version}-*"):
        shutil.rmtree(copy, ignore_errors=True)
