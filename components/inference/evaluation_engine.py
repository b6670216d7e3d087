"""Engine that evaluates a model: close to fp32, and fast for many rows."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from raypath.components.core.files import link
from raypath.components.inference.backends.loader import Precision, missing_package, unsupported_reason
from raypath.components.inference.backends.openvino_export import ExportError, export
from raypath.components.inference.backends.openvino_runtime import FILES
from raypath.components.inference.engine import Engine, model_type
from raypath.components.models.metadata import read_metadata
from raypath.components.tasks.catalog import load_task

EXPORT_ROWS = 10_000
"""Rows from which the export of a model, some seconds, costs less than it saves: OpenVINO in float makes 1.5 times as
many rows as PyTorch in bf16 (MiniLM-L6, one thread)."""
_log = logging.getLogger(__name__)


def evaluation_engine(folder: Path, workers: int, rows: int, scratch: Path) -> Engine:
    """Open a model for `rows` rows: by OpenVINO in float where that pays, else by PyTorch in bf16 or fp32.

    workers: Batches of one thread each at a time. scratch: Folder for a copy of the model with OpenVINO's files.
    Raises DataError for a folder that does not open.
    """
    plain = Engine(folder, precision="plain", parallel=workers)
    name: Precision = "openvino"
    if rows < EXPORT_ROWS or plain.device != "cpu" or missing_package(name):
        return plain
    task = load_task(read_metadata(folder))
    if unsupported_reason(name, task, model_type(folder)):
        return plain
    copy = scratch / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, copy_function=link, ignore=shutil.ignore_patterns(*FILES[name]))
    try:
        export(folder, task, copy)
    except ExportError as error:
        _log.warning("OpenVINO does not convert the model (%s); PyTorch evaluates it", error)
        return plain
    return Engine(copy, precision=name, parallel=workers)
