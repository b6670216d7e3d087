"""Process-wide PyTorch settings. Entry points call `configure_process` once; constructors change no global state."""

from __future__ import annotations


def configure_process(threads: int = 0, seed: int | None = None) -> None:
    """Set CPU threads (0 keeps PyTorch's), the random seed (None keeps it) and, on a GPU, the attention backend.

    cuDNN's attention is disabled: it plans anew for each input shape, and hardly two batches share one. This costs
    13 ms of CPU time a forward call and 17 ms backward, where a whole step of MiniLM-L6 over 16,384 tokens takes an
    H100 9 ms.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    if seed is not None:
        torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.backends.cuda.enable_cudnn_sdp(False)
