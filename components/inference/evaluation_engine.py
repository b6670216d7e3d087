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
"""Rows from which a model is exported. The export of MiniLM-L6 takes 3.9 s of CPU time; 10,000 reviews take
PyTorch in bf16 78 s and OpenVINO 53 s on one thread, by the rates of docs/benchmarks.md."""
OPENVINO: Precision = "openvino"
_log = logging.getLogger(__name__)


def evaluation_engine(folder: Path, workers: int, rows: int, scratch: Path) -> Engine:
    """Open a model for `rows` rows: by OpenVINO in float where that pays, else by PyTorch in bf16 or fp32.

    workers: Batches of one thread each at a time. scratch: Folder for a copy of the model with OpenVINO's files.
    Raises DataError for a folder that does not open.
    """
    copy = scratch / OPENVINO
    if rows >= EXPORT_ROWS and _is_exported(folder, copy):
        return Engine(copy, precision=OPENVINO, parallel=workers)
    return Engine(folder, precision="plain", parallel=workers)


def _is_exported(folder: Path, copy: Path) -> bool:
    """Export a model to `copy` if that is possible on this machine."""
    import torch

    task = load_task(read_metadata(folder))
    if torch.cuda.is_available() or missing_package(OPENVINO) or unsupported_reason(OPENVINO, task, model_type(folder)):
        return False
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, copy_function=link, ignore=shutil.ignore_patterns(*FILES[OPENVINO]))
    try:
        export(folder, task, copy)
    except ExportError as error:
        _log.warning("OpenVINO does not convert the model (%s); PyTorch evaluates it", error)
        return False
    return True
