"""Inference backends: PyTorch (fp32, bf16, int8) and ONNX Runtime (fp32, int8)."""
