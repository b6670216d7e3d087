"""ONNX Runtime backend: fp32 and int8 models with the call signature of the PyTorch backend."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raypath.components.core.errors import DataError, ParamsError

FILES: dict[str, str] = {"onnx": "model.onnx", "onnx-int8": "model.int8.onnx"}
"""Model files of ONNX Runtime, in the model folder."""


EXTRA = ("onnxruntime", "onnx", "onnxscript")


PAD = "raypath.pad"


class OnnxModel:
    """Sequence classifier in ONNX Runtime.

    A session's number of threads is fixed, so there are two sessions: one with all threads, and one with a single
    thread for callers whose torch uses one (concurrent batches, see dynamic_batching.py). Threads do not spin between
    matmuls, which would slow down other batches.

    Raises DataError for a file that is missing or does not open, ParamsError without onnxruntime.
    """

    def __init__(self, path: Path, threads: int) -> None:
        if not path.is_file():
            raise DataError(f"{path.parent} has no {path.name}", fix="register it again, or use precision fp32")
        import torch

        all_threads = threads or torch.get_num_threads()
        self.together = _session(path, all_threads)
        self.single = self.together if all_threads == 1 else _session(path, 1)
        pad = self.together.get_modelmeta().custom_metadata_map.get(PAD, "0")
        self.config = SimpleNamespace(pad_token_id=int(pad))

    def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
        """Tensors int64 [B, L] -> logits float32 [B, K] as a tensor, in the field `logits`."""
        import torch

        session = self.single if torch.get_num_threads() == 1 else self.together
        given = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return SimpleNamespace(logits=torch.from_numpy(session.run(["logits"], given)[0]))


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError:
        raise ParamsError("onnxruntime is not installed", fix="pip install 'raypath[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented) as error:
        raise DataError(f"{path} does not open ({str(error).splitlines()[0]})", fix="register it again") from None
