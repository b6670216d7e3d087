"""OpenVINO backend: float and int8 models with the call signature of the PyTorch backend."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np

from raypath.components.core.errors import DataError, ParamsError, StoreError
from raypath.components.models.bf16 import supports_bf16

FILES: dict[str, tuple[str, str]] = {
    "openvino": ("openvino.xml", "openvino.bin"),
    "openvino-int8": ("openvino.int8.xml", "openvino.int8.bin"),
}
"""Model files of OpenVINO, in the model folder: the graph and its weights."""
EXTRA = "openvino"
GRAPH_BYTES = 1 << 20
"""Bytes of a graph without its weights, at most."""
_TELEMETRY = "openvino_telemetry"
_initialized = threading.Lock()


class OpenVinoModel:
    """Sequence classifier in OpenVINO.

    It is compiled twice: with all threads for a single batch, and with one thread for each batch, for callers whose
    torch uses one (concurrent batches, see dynamic_batching.py). Where the CPU has bf16 matmuls, what is not quantized
    is computed in bf16. Calls from several threads run at the same time.

    threads: of a single batch; 0 takes torch's. parallel: batches at a time if none has all threads, else 0.
    Raises DataError for a file that is missing or does not open, ParamsError without openvino.
    """

    def __init__(self, path: Path, threads: int, parallel: int = 0) -> None:
        if not path.is_file():
            raise DataError(f"{path.parent} has no {path.name}", fix="register it again, or use precision fp32")
        import torch

        core = import_openvino().Core()
        cores = parallel or threads or torch.get_num_threads()
        try:
            model = core.read_model(path)
            self.throughput = _Compiled(core, model, cores, streams=cores)
            self.latency = self.throughput if parallel or cores == 1 else _Compiled(core, model, cores, streams=1)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise DataError(f"{path} does not open ({reason})", fix="register it again") from None
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        self.config = SimpleNamespace(pad_token_id=config.get("pad_token_id"))

    def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
        """Tensors int64 [B, L] -> logits float32 [B, K] as a tensor, in the field `logits`."""
        import torch

        compiled = self.throughput if torch.get_num_threads() == 1 else self.latency
        return SimpleNamespace(logits=torch.from_numpy(compiled.run(input_ids.numpy(), attention_mask.numpy())))


class _Compiled:
    """A compiled model, and its requests that are not in use: each runs one batch at a time."""

    def __init__(self, core: Any, model: Any, threads: int, streams: int) -> None:
        precision = "bf16" if supports_bf16("cpu") else "f32"
        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams, "INFERENCE_PRECISION_HINT": precision}
        # Several processes would be pinned to the same cores.
        self.model = core.compile_model(model, "CPU", options | {"ENABLE_CPU_PINNING": False})
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def run(self, ids: Any, mask: Any) -> Any:
        """int64 [B, L] twice -> float32 [B, K]."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self.model.create_infer_request()
        try:
            return request.infer([ids, mask], share_inputs=True)[0].copy()  # the request overwrites its output
        finally:
            self._idle.put(request)


def import_openvino() -> Any:
    """Import openvino without its telemetry. Raises ParamsError where it is not installed.

    The import and each conversion would send events to Google Analytics; openvino skips this where openvino_telemetry
    is absent. It stays absent in this process, since a conversion imports it again.
    """
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise ParamsError("openvino is not installed", fix="pip install 'raypath[openvino]'") from None
    with _initialized:
        # The first call builds a C++ static and releases the GIL meanwhile. A second thread in its own first call would
        # wait for the static with the GIL held: both, and all other threads, would wait for ever.
        openvino.Type.i64.to_dtype()
        openvino.Tensor(np.zeros(1, np.int64)).data  # noqa: B018
    return openvino


def save_graph(graph: Any, path: Path, compress_to_fp16: bool) -> None:
    """Write a graph (.xml) and its weights (.bin). Raises StoreError for a full disk, which OpenVINO does not name."""
    try:
        import_openvino().save_model(graph, path, compress_to_fp16=compress_to_fp16)
    except RuntimeError:
        # What was written is removed again, so that the space that it lacked is free.
        needed = sum(each.get_byte_size() for each in graph.get_ops() if each.get_type_name() == "Constant")
        if shutil.disk_usage(path.parent).free < needed + GRAPH_BYTES:
            what = f"no free disk space in {path.parent}"
            raise StoreError(what, fix="free disk space, then run the same command again") from None
        raise
