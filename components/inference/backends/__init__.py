"""Inference backends: PyTorch (fp32, bf16) and OpenVINO (float, int8)."""
