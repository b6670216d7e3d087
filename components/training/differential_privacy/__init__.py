"""Differentially private training (DP-SGD) of heads and LoRA adapters."""
